"""Named entities in social media, by a pretrained encoder and without.

omnia reproduce entities --data DIR
CoNLL-2003 may not be passed on: configs/tables/conll2003.py takes your copy.
"""

from train.experiment import Experiment
from train.reproduce.files import PublicFile
from train.reproduce.table import Better, Row, Table
from train.reproduce.tagged import METRICS, MINILM, WAYS, command, experiment_of

WNUT = tuple(
    PublicFile(f"wnut_{part}", f"ner_wnut17/{part}.conll", digest)
    for part, digest in (
        ("train", "707d8fbadf7ab186e7998fdcbea41470d25d0a453049f531d0c8d0c810a8d8cb"),
        ("test", "59242c5624a463782626d55a82c2c735fb687a011c44335acbb102e6d8e9d359"),
    )
)
"""Emerging entities of six types (Derczynski et al. 2017), CC BY 4.0."""


def get_config(arg: str = "whole") -> Experiment:
    return experiment_of(arg)


def get_table() -> Table:
    return Table(
        title="Named entities",
        paper="Derczynski et al. 2017 (WNUT-17), table 3: best of the shared task 41.86",
        claim="A pretrained encoder that is fine-tuned finds more emerging entities than its frozen features.",
        metrics=METRICS,
        files=WNUT,
        shared=(MINILM,),
        rows=tuple(
            Row(way, what, (command(way, "wnut_train", "wnut_test"),), paper=0.4186 if way == "whole" else None)
            for way, what in WAYS.items()
        ),
        claims=(Better("whole", "frozen"), Better("lora", "frozen")),
        note="Three passes over the training part in rows of 64 tokens, which cut one test sentence in nineteen, "
        "strict F1 on the test part; the development part is not used. Accuracy of tokens is high for every method, since nearly all "
        "tokens are in no entity.",
    )
