"""Attention: one dispatch, several kernels, all equal to one reference."""
