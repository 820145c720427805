"""Generation: sampling, beams, filters of the next token, eight-bit weights."""
