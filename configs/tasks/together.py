"""Several tasks in one run, on any pretrained model.

omnia train configs/tasks/together.py:classification+tagging --run-dir RUN --start MODEL --data.tasks.0.files a.csv \
  --data.tasks.1.files b.conll
The argument names the tasks, in the order of their numbers: classification, tagging, spans, choice, similarity, and for models that
write also texts, instruction and code; one may stand there twice. An encoder gets a head for each. Names and shares: --data.names topics
entities --data.weights 2 1.
"""

from model import OfStart
from train import (
    AdamW,
    Checkpoints,
    Classification,
    Conversations,
    Evaluation,
    Experiment,
    Logging,
    MultipleChoice,
    Programs,
    Samples,
    Schedule,
    SequenceToSequence,
    Similarity,
    Spans,
    SupervisedTogether,
    Tagging,
    Together,
)

KINDS = {
    "classification": Classification(),
    "tagging": Tagging(),
    "spans": Spans(),
    "choice": MultipleChoice(),
    "similarity": Similarity(),
    "texts": SequenceToSequence(),
    "instruction": Conversations(),
    "code": Programs(),
}


def get_config(arg: str = "classification+classification") -> Experiment:
    names = arg.split("+")
    if unknown := set(names) - KINDS.keys():
        raise ValueError(f"there is no {unknown.pop()!r}; choose from {', '.join(KINDS)}, with + between")
    return Experiment(
        name=f"together, {arg}",
        steps=1000,
        batch_size=32,
        model=OfStart(dropout=0.1),
        data=Together(tasks=tuple(KINDS[name] for name in names)),
        objective=SupervisedTogether(),
        optimizer=AdamW(learning_rate=5e-5, weight_decay=0.01, beta2=0.999),
        schedule=Schedule(warmup_steps=50, decay="linear", final_fraction=0.0),
        evaluation=Evaluation(every=200),
        checkpoints=Checkpoints(every=250),
        samples=Samples(tokens=0),
        logging=Logging(every=10),
    )
