"""Readers of inputs, one format a file; `data/readers/inputs.py` chooses among them. Each gives the documents of an extent, in order."""
