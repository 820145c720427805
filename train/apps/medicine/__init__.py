"""Medical cases, for research and not for care: a text, values and an image in one row."""
