"""Which rows come in which order: seeded permutations and mixtures, the same for every kind of data."""
