"""R-Drop and other regularisation of fine-tuning, on few labelled sentences.

omnia reproduce rdrop --data DIR
"""

from train.experiment import Experiment
from train.objectives.tasks.options import Supervised
from train.reproduce.labelled import ENCODER, FILES, TEXTS
from train.reproduce.table import Better, Metric, Row, Table, training
from train.tasks.classification import Classification
from train.tasks.recipe import fine_tuning

OBJECTIVES = {
    "plain": (Supervised(), "dropout alone"),
    "r_drop": (Supervised(r_drop=1.0), "R-Drop, weight 1 (Liang et al. 2021)"),
    "r_drop_4": (Supervised(r_drop=4.0), "R-Drop, weight 4"),
    "mixup": (Supervised(mixup=0.4), "mixup of the texts' vectors (Guo et al. 2019)"),
    "smoothing": (Supervised(label_smoothing=0.1), "label smoothing of 0.1 (Szegedy et al. 2016)"),
}
EXAMPLES = 1000


def get_config(arg: str = "r_drop") -> Experiment:
    objective, what = OBJECTIVES[arg]
    return fine_tuning(what, Classification(length=64, examples=EXAMPLES), objective=objective, steps=200, rate=3e-4)


def get_table() -> Table:
    files = "--start {encoder}/two --data.files {texts}/polarity_train.csv --data.validation-files {texts}/polarity_test.csv"
    return Table(
        title="R-Drop, mixup and label smoothing",
        paper="Liang et al. 2021 (R-Drop), table 3",
        claim="Keeping the answers of two dropout passes together makes fine-tuning more accurate.",
        metrics=(
            Metric("validation/accuracy", "accuracy", "share", lower_is_better=False),
            Metric("validation/ece_10", "calibration error", "share"),
        ),
        files=FILES,
        shared=(TEXTS, ENCODER),
        rows=tuple(Row(name, what, (training(f"{{table}}:{name}", files),)) for name, (_, what) in OBJECTIVES.items()),
        claims=(Better("r_drop", "plain"), Better("r_drop_4", "plain")),
        note=f"Two layers of MiniLM, {EXAMPLES} sentences of film reviews, 200 steps of 32. R-Drop takes two forward passes a step, so at "
        "equal steps it costs about twice as much.",
    )
