"""Extraction: clauses of contracts, quoted with their places, what is absent, and what should be looked at.

omnia train configs/apps/extraction.py --start MODEL --data.files clauses.jsonl --data.label categories
Ten minutes on two cores for 5,100 clauses (CUAD) from a MiniLM. Then omnia apply RUN --input contracts.jsonl --output found.jsonl
"""

from train import Experiment, Extraction, Supervised, fine_tuning


def get_config(arg: str = "") -> Experiment:
    return fine_tuning("extraction", Extraction(length=128), objective=Supervised(ngrams=2), steps=500, rate=3e-4)
