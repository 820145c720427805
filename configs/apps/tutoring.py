"""Tutoring: the teacher's next move in a dialogue about a problem, and a hint that does not give the solution away.

omnia train configs/apps/tutoring.py --start MODEL --data.files dialogues.jsonl --data.problems problems.jsonl
Two minutes on two cores for 371 dialogues (MathDial) from a MiniLM. Then
omnia apply RUN --input dialogues.jsonl --output turns.jsonl; or omnia serve RUN
"""

from train import Experiment, Tutoring, fine_tuning


def get_config(arg: str = "") -> Experiment:
    return fine_tuning("tutoring", Tutoring(length=128), steps=150, batch_size=24, rate=3e-4)
