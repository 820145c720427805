"""Few labels and noisy labels of texts of your own: whether more of them, or better ones, would help.

omnia reproduce own_labels --data DIR
DIR holds train.csv and test.csv, whose columns are text and label.
"""

from train.experiment import Experiment
from train.reproduce.curves import METRICS, experiment_of, rows_of
from train.reproduce.files import PublicFile
from train.reproduce.labelled import ENCODER
from train.reproduce.table import Better, Table


def get_config(arg: str = "plain") -> Experiment:
    return experiment_of(arg)


def get_table() -> Table:
    return Table(
        title="Few labels and noisy labels of your own",
        paper="Zhang et al. 2017 (Understanding deep learning requires rethinking generalization), fig. 1",
        claim="More labels help, and wrong ones cost.",
        metrics=METRICS,
        files=(PublicFile("own_train", "train.csv"), PublicFile("own_test", "test.csv")),
        shared=(ENCODER,),
        rows=tuple(rows_of("--data.files {own_train} --data.validation-files {own_test}")),
        claims=(Better("n1000_0", "n200_0"), Better("n200_0", "n50_0"), Better("n1000_0", "n1000_0.4")),
        x="labelled examples",
        note="Two layers of MiniLM, 200 steps of 32 at every size; a size above that of your file is all of it.",
    )
