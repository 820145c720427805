"""Text and media from a trained model."""
