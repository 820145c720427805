"""Named entities in social media, by a pretrained encoder and without.

omnia reproduce entities --data DIR
CoNLL-2003 may not be passed on: configs/tasks/tagging.py takes files of your own.
"""

from train.experiment import Experiment
from train.reproduce.files import PublicFile
from train.reproduce.table import Better, Metric, Row, Shared, Table, training
from train.tasks.recipe import fine_tuning
from train.tasks.tagging import Tagging

WNUT = tuple(
    PublicFile(f"wnut_{part}", f"ner_wnut17/{part}.conll", digest)
    for part, digest in (
        ("train", "707d8fbadf7ab186e7998fdcbea41470d25d0a453049f531d0c8d0c810a8d8cb"),
        ("test", "59242c5624a463782626d55a82c2c735fb687a011c44335acbb102e6d8e9d359"),
    )
)
"""Emerging entities of six types (Derczynski et al. 2017), CC BY 4.0."""
MINILM = Shared("minilm", ("omnia import minilm --run-dir {run}",))
WAYS = {"whole": "six layers of MiniLM", "lora": "the same by LoRA, rank 8", "frozen": "its head alone"}


def get_config(arg: str = "whole") -> Experiment:
    return fine_tuning(
        WAYS[arg],
        Tagging(length=64),
        steps=320,
        rate=2e-4 if arg == "whole" else 2e-3,
        frozen=("embedding", "positions", "token_types", "embedding_norm", "layers") if arg == "frozen" else (),
    )


def get_table() -> Table:
    def command(way: str) -> str:
        options = "--adapters lora --adapters.rank 8" if way == "lora" else ""
        return training(
            f"{{table}}:{way}", "--start {minilm}", f"--data.files {{wnut_train}} --data.validation-files {{wnut_test}} {options}"
        )

    return Table(
        title="Named entities",
        paper="Derczynski et al. 2017 (WNUT-17), table 3: best of the shared task 41.86",
        claim="A pretrained encoder that is fine-tuned finds more emerging entities than its frozen features.",
        metrics=(
            Metric("validation/f1", "F1 of entities", "share", lower_is_better=False),
            Metric("validation/token_accuracy", "accuracy of tokens", "share", lower_is_better=False),
        ),
        files=WNUT,
        shared=(MINILM,),
        rows=tuple(Row(way, what, (command(way),), paper=0.4186 if way == "whole" else None) for way, what in WAYS.items()),
        claims=(Better("whole", "frozen"), Better("lora", "frozen")),
        note="Three passes over the training part in rows of 64 tokens, which cut one test sentence in nineteen, "
        "strict F1 on the test part; the development part is not used. Accuracy of tokens is high for every method, since nearly all "
        "tokens are in no entity.",
    )
