"""Few labels and noisy labels: how accuracy falls, and what helps.

omnia reproduce few_labels --data DIR
"""

from train.experiment import Experiment
from train.objectives.tasks.options import Supervised
from train.reproduce.labelled import ENCODER, FILES, TEXTS
from train.reproduce.table import Better, Metric, Row, Table, training
from train.tasks.classification import Classification
from train.tasks.recipe import fine_tuning

SIZES = (50, 200, 1000, 4000)
NOISE = (0.0, 0.4)
SERIES = {0.0: "true labels", 0.4: "40 % of the labels wrong"}


def get_config(arg: str = "plain") -> Experiment:
    return fine_tuning(
        f"labels, {arg}",
        Classification(length=64),
        objective=Supervised(label_smoothing=0.2 if arg == "smoothed" else 0.0),
        steps=200,
        rate=3e-4,
    )


def get_table() -> Table:
    def command(size: int, noise: float, way: str = "plain") -> str:
        files = "--start {encoder}/two --data.files {texts}/trec_train.csv --data.validation-files {texts}/trec_test.csv"
        return training(f"{{table}}:{way}", files, f"--data.examples {size} --data.label-noise {noise:g}")

    rows = [
        Row(f"n{size}_{noise:g}", f"{size} examples, {SERIES[noise]}", (command(size, noise),), x=size, series=SERIES[noise])
        for noise in NOISE
        for size in SIZES
    ]
    what = "40 % wrong, smoothed by 0.2"
    rows += [Row(f"n{size}_smoothed", f"{size} examples, {what}", (command(size, 0.4, "smoothed"),), x=size, series=what) for size in SIZES]
    return Table(
        title="Few labels and noisy labels",
        paper="Zhang et al. 2017 (Understanding deep learning requires rethinking generalization), fig. 1; Lukasik et al. 2020, table 1",
        claim="More labels help, wrong ones cost less than missing ones, and smoothed labels are more robust to wrong ones.",
        metrics=(
            Metric("validation/accuracy", "accuracy", "share", lower_is_better=False),
            Metric("validation/ece_10", "calibration error", "share"),
        ),
        files=FILES,
        shared=(TEXTS, ENCODER),
        rows=tuple(rows),
        claims=(
            Better("n1000_0", "n200_0"),
            Better("n200_0", "n50_0"),
            Better("n1000_0", "n1000_0.4"),
            Better("n4000_0.4", "n200_0"),
            Better("n4000_smoothed", "n4000_0.4"),
        ),
        x="labelled examples",
        note="Questions and what they ask for (six classes), two layers of MiniLM, 200 steps of 32 at every size. Noise replaces labels by "
        "others, all alike. The papers trained on images.",
    )
