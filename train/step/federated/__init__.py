"""Rounds of federated learning: clients train by themselves, and what they learned is brought together."""
