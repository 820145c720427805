"""Grading of short answers: a score with an interval, the points that an answer has, and which answers a teacher should see.

omnia train configs/apps/grading.py --start MODEL --data.files graded.jsonl --data.encoder MODEL
Two minutes on two cores for 1,238 answers (Mohler) from a MiniLM. Then omnia apply RUN --input answers.jsonl --output scores.jsonl
"""

from train import Experiment, Grading, fine_tuning


def get_config(arg: str = "") -> Experiment:
    return fine_tuning("grading", Grading(length=96), steps=160, batch_size=24, rate=4e-4)
