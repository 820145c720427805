"""Objectives on rows with images, video or audio."""
