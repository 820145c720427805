"""Coherence of dialogues: which turns follow from what was said, and which contradict it.

omnia train configs/apps/coherence.py --run-dir runs/judge --start runs/minilm --data.files dialogues.jsonl --data.encoder runs/minilm
omnia apply runs/judge --input dialogues.jsonl --output judged.jsonl
Of 500 dialogues (DialogSum; table coherence): planted contradictions in others are told with an AUROC of 0.91. Three seeds, of 18 minutes
each on one core.
"""

from train import Coherence, Experiment, fine_tuning


def get_config(arg: str = "") -> Experiment:
    return fine_tuning("coherence", Coherence(length=160), steps=400, rate=2e-4)
