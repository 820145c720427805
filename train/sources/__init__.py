"""What an experiment names as its data, opened: sources, and the rows that are made of them."""
