"""The training loop and what it keeps watch over: signals, bad steps, metrics, the report."""
