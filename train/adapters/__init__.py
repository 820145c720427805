"""Fine-tuning few parameters beside a frozen model."""
