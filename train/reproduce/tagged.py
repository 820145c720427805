"""Named entities by a pretrained encoder: what the tables of several files share."""

from train.experiment import Experiment
from train.reproduce.table import Metric, Shared, training
from train.tasks.recipe import fine_tuning
from train.tasks.tagging import Tagging

MINILM = Shared("minilm", ("omnia import minilm --run-dir {run}",))
WAYS = {"whole": "six layers of MiniLM", "lora": "the same by LoRA, rank 8", "frozen": "its head alone"}


def experiment_of(way: str) -> Experiment:
    return fine_tuning(
        WAYS[way],
        Tagging(length=64),
        steps=320,
        rate=2e-4 if way == "whole" else 2e-3,
        frozen=("embedding", "positions", "token_types", "embedding_norm", "layers") if way == "frozen" else (),
    )


def command(way: str, learned: str, tested: str) -> str:
    options = "--adapters lora --adapters.rank 8" if way == "lora" else ""
    return training(f"{{table}}:{way}", "--start {minilm}", f"--data.files {{{learned}}} --data.validation-files {{{tested}}} {options}")


METRICS = (
    Metric("validation/f1", "F1 of entities", "share", lower_is_better=False),
    Metric("validation/token_accuracy", "accuracy of tokens", "share", lower_is_better=False),
)
