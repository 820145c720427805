"""Readers: what stands where in long texts, and which messages are not wanted."""
