"""A monitor of opinion: what is said of topics in a stream, and its surges."""
