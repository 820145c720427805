"""Gradients of which nobody can tell whether one person's rows were there."""
