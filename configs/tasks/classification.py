"""Classes of texts, or of pairs of texts, by any pretrained model.

omnia train configs/tasks/classification.py --run-dir RUN --start MODEL --data.files train.csv
MODEL is a run: `omnia import minilm --run-dir MODEL` makes one of a published model. The columns are `text` and `label`; others:
--data.text review --data.pair reply --data.label class. `configs/tasks/classification.py:defects` finds faulty functions, in the columns
func and target, as CodeXGLUE has them.
"""

from train import Classification, Experiment, fine_tuning


def get_config(arg: str = "") -> Experiment:
    kinds = {"": Classification(), "defects": Classification(text="func", label="target", length=384)}
    if arg not in kinds:
        raise ValueError(f"there is no {arg!r}; choose defects, or leave it out")
    return fine_tuning(arg or "classification", kinds[arg], every=100)
