"""Checkpoints: saved by Orbax, with digests and a journal of our own."""
