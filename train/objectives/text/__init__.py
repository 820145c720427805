"""Objectives on text alone."""
