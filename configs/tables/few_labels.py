"""Few labels and noisy labels: how accuracy falls, and what helps.

omnia reproduce few_labels --data DIR
"""

from train.experiment import Experiment
from train.reproduce.curves import METRICS, experiment_of, rows_of
from train.reproduce.labelled import ENCODER, FILES, TEXTS
from train.reproduce.table import Better, Table


def get_config(arg: str = "plain") -> Experiment:
    return experiment_of(arg)


def get_table() -> Table:
    return Table(
        title="Few labels and noisy labels",
        paper="Zhang et al. 2017 (Understanding deep learning requires rethinking generalization), fig. 1; Lukasik et al. 2020, table 1",
        claim="More labels help, wrong ones cost less than missing ones, and smoothed labels are more robust to wrong ones.",
        metrics=METRICS,
        files=FILES,
        shared=(TEXTS, ENCODER),
        rows=tuple(rows_of("--data.files {texts}/trec_train.csv --data.validation-files {texts}/trec_test.csv")),
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
