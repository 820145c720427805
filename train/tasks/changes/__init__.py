"""Texts changed: as they are learned from, as an attack tries, and as a test of fairness swaps."""
