"""Objectives on comparisons: reward models, direct preference optimisation."""
