"""Restyling: a text of one style is told in another, learned from texts of each, of which none is the other's.

omnia import smollm2 --run-dir runs/smollm2
omnia train configs/apps/style.py --run-dir runs/style --start runs/smollm2 --adapters lora --data.files texts.jsonl
omnia apply runs/style --input texts.jsonl --output told.jsonl
Columns: text, and style; in rows to restyle, the style that is wanted. Of 160 sentences of film reviews a judge tells the other kind of
0.63, which keep a BLEU of 68: one seed, 21 minutes beside other jobs. Filling in other marks without a model has 0.72
(docs/applications.md).
"""

from train import Experiment, Restyling, fine_tuning


def get_config(arg: str = "") -> Experiment:
    return fine_tuning("style", Restyling(length=128, written=64), steps=80, batch_size=8, rate=1e-3, weight_decay=0.0, dropout=0.0)
