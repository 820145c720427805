"""Encoders of images, video and audio, and what joins them to a decoder."""
