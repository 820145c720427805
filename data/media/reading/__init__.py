"""Inputs of media: folders, tables, JSON lines, archives. Each record becomes a sample."""
