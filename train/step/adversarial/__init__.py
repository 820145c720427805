"""Gradients of a loss at embeddings that are moved against it."""
