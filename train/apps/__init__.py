"""Runs at work: what people use a run for, and what stands around a model so that they can."""
