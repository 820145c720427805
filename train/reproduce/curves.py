"""Few labels and noisy labels: what the tables that draw these curves share."""

from train.experiment import Experiment
from train.objectives.tasks.options import Supervised
from train.reproduce.table import Metric, Row, training
from train.tasks.classification import Classification
from train.tasks.recipe import fine_tuning

SIZES = (50, 200, 1000, 4000)
NOISE = (0.0, 0.4)
SERIES = {0.0: "true labels", 0.4: "40 % of the labels wrong"}


def experiment_of(arg: str) -> Experiment:
    """plain, or with smoothed labels."""
    return fine_tuning(
        f"labels, {arg}",
        Classification(length=64),
        objective=Supervised(label_smoothing=0.2 if arg == "smoothed" else 0.0),
        steps=200,
        rate=3e-4,
    )


def rows_of(files: str) -> list[Row]:
    """files: the options that name them."""

    def command(size: int, noise: float, way: str = "plain") -> str:
        return training(f"{{table}}:{way}", f"--start {{encoder}}/two {files}", f"--data.examples {size} --data.label-noise {noise:g}")

    rows = [
        Row(f"n{size}_{noise:g}", f"{size} examples, {SERIES[noise]}", (command(size, noise),), x=size, series=SERIES[noise])
        for noise in NOISE
        for size in SIZES
    ]
    what = "40 % wrong, smoothed by 0.2"
    rows += [Row(f"n{size}_smoothed", f"{size} examples, {what}", (command(size, 0.4, "smoothed"),), x=size, series=what) for size in SIZES]
    return rows


METRICS = (
    Metric("validation/accuracy", "accuracy", "share", lower_is_better=False),
    Metric("validation/ece_10", "calibration error", "share"),
)
