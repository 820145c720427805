"""Editing: a model proposes edits, and those stand that people would make."""
