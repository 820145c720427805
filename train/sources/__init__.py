"""What an experiment names as its data, opened: the rows that a step takes."""
