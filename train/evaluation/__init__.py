"""What is measured of a model: losses by token, retrieval, long contexts."""
