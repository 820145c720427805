"""Few parameters against all of them: LoRA, AdaLoRA, bottlenecks, prefixes and biases beside full fine-tuning.

omnia reproduce adapters --data DIR
"""

from train.experiment import Experiment
from train.reproduce.labelled import ENCODER, FILES, TEXTS
from train.reproduce.table import Better, Metric, Row, Table, training
from train.tasks.classification import Classification
from train.tasks.recipe import fine_tuning

METHODS = {
    "full": ("all parameters", "", 3e-4),
    "lora": ("LoRA, rank 4 (Hu et al. 2021)", "--adapters lora --adapters.rank 4", 5e-3),
    "adalora": ("AdaLoRA, mean rank 4 at the end (Zhang et al. 2023)", "--adapters adalora --adapters.rank 4", 1e-2),
    "houlsby": ("bottlenecks of 16 (Houlsby et al. 2019)", "--adapters houlsby --adapters.width 16", 2e-3),
    "prefix": ("16 keys and values in each layer (Li and Liang 2021)", "--adapters prefix --adapters.length 16", 5e-3),
    "bitfit": ("biases alone (Ben Zaken et al. 2022)", "--adapters bitfit", 2e-3),
    "head": ("the head alone", "--frozen embedding positions token_types embedding_norm layers pooler", 2e-3),
}
TASKS = {"trec": "questions", "polarity": "reviews"}


def get_config(arg: str = "lora") -> Experiment:
    what, _, rate = METHODS[arg]
    return fine_tuning(what, Classification(length=64), steps=200, rate=rate, weight_decay=0.0)


def get_table() -> Table:
    def command(name: str, task: str) -> str:
        files = f"--start {{encoder}}/two --data.files {{texts}}/{task}_train.csv --data.validation-files {{texts}}/{task}_test.csv"
        return training(f"{{table}}:{name}", files, METHODS[name][1])

    return Table(
        title="Few parameters against all",
        paper="Hu et al. 2021 (LoRA), table 2; Zhang et al. 2023 (AdaLoRA), table 1; Houlsby et al. 2019, table 1",
        claim="Below one per cent of the parameters, trained beside a frozen model, come near to training all, and far above its head.",
        metrics=(Metric("validation/accuracy", "accuracy", "share", lower_is_better=False),),
        files=FILES,
        shared=(TEXTS, ENCODER),
        rows=tuple(
            Row(f"{name}_{task}", f"{what}: {kind}", (command(name, task),))
            for task, kind in TASKS.items()
            for name, (what, _, _) in METHODS.items()
        ),
        claims=tuple(
            claim
            for task in TASKS
            for claim in (
                Better(f"lora_{task}", f"head_{task}"),
                Better(f"lora_{task}", f"full_{task}", by=-0.02),
                Better(f"adalora_{task}", f"lora_{task}", by=-0.005),
                Better(f"houlsby_{task}", f"head_{task}"),
            )
        ),
        note="Two layers of MiniLM, 200 steps of 32; rates were chosen once for each method. Claims with a margin say that a method is at "
        "most that much worse.",
    )
