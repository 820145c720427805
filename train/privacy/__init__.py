"""What private training promises: who counts as one, which rows a step draws, what it costs, and whether it holds."""
