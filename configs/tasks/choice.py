"""Questions with choices, by any pretrained model.

omnia train configs/tasks/choice.py --run-dir RUN --start MODEL --data.files train.jsonl
Columns: question, choices (a list, or --data.choices A B C D for a column each) and label (number from 0, letter from A, or text). An
encoder scores each choice; other models are asked how likely it is.
"""

from train import Experiment, MultipleChoice, fine_tuning


def get_config(arg: str = "") -> Experiment:
    return fine_tuning("choice", MultipleChoice(length=256), batch_size=16, every=100, best="accuracy")
