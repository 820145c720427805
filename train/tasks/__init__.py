"""Tasks that models are fine-tuned for: their metrics and pictures."""
