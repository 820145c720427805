"""Readers of inputs, one format a file; `data/inputs.py` chooses among them. Each gives the documents of a part, in order."""
