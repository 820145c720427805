"""Named entities in news: CoNLL-2003, of which everyone needs a copy of their own.

omnia reproduce conll2003 --data DIR
DIR holds conll2003/eng.train and conll2003/eng.testb.
"""

from train.experiment import Experiment
from train.reproduce.files import PublicFile
from train.reproduce.table import Better, Row, Table
from train.reproduce.tagged import METRICS, MINILM, WAYS, command, experiment_of

OWN = (PublicFile("conll_train", "conll2003/eng.train"), PublicFile("conll_test", "conll2003/eng.testb"))


def get_config(arg: str = "whole") -> Experiment:
    return experiment_of(arg)


def get_table() -> Table:
    return Table(
        title="Named entities in news",
        paper="Tjong Kim Sang and De Meulder 2003 (CoNLL-2003), table 5: best of the shared task 88.76",
        claim="A pretrained encoder that is fine-tuned finds more entities than its frozen features.",
        metrics=METRICS,
        files=OWN,
        shared=(MINILM,),
        rows=tuple(
            Row(way, what, (command(way, "conll_train", "conll_test"),), paper=0.8876 if way == "whole" else None)
            for way, what in WAYS.items()
        ),
        claims=(Better("whole", "frozen"), Better("lora", "frozen")),
        note="The files as their authors have them: four columns, IOB1, which is read as IOB2. Rows of 64 tokens. The "
        "accuracy of tokens is high for every method, since most tokens are in no entity: compare F1.",
    )
