"""Recommendation: who had what when, the texts of items, and the task of the next one."""
