"""A student of few layers learns from a teacher what it is asked, and how the teacher answers.

omnia train configs/distillation.py --run-dir RUN --start MODEL --start-layers 1 3 5 --objective.teacher TEACHER --data.files train.csv
TEACHER is a run of configs/tasks/classification.py on the same files. The student begins with every second layer of MODEL. Others:
`:tagging` and `:spans` for the other tasks of encoders, `:masked` and `:next` for rows of text (--data.shards DIR).
"""

from model import OfStart, TextEncoderConfig
from train import (
    AdamW,
    CausalLM,
    Checkpoints,
    Classification,
    Distillation,
    Evaluation,
    Experiment,
    Logging,
    MaskedLM,
    Samples,
    Schedule,
    Spans,
    Supervised,
    Tagging,
    TextData,
)

KINDS = {
    "classification": (Classification(), Supervised()),
    "tagging": (Tagging(), Supervised()),
    "spans": (Spans(), Supervised()),
    "next": (TextData(), CausalLM()),
    "masked": (TextData(), MaskedLM()),
}


def get_config(arg: str = "classification") -> Experiment:
    if arg not in KINDS:
        raise ValueError(f"there is no {arg!r}; choose one of {', '.join(KINDS)}")
    data, of = KINDS[arg]
    return Experiment(
        name=f"distillation, {arg}",
        steps=500,
        batch_size=32,
        model=TextEncoderConfig(dropout=0.1) if arg == "masked" else OfStart(dropout=0.1),
        data=data,
        objective=Distillation(of=of),
        optimizer=AdamW(learning_rate=5e-5, weight_decay=0.01, beta2=0.999),
        schedule=Schedule(warmup_steps=50, decay="linear", final_fraction=0.0),
        evaluation=Evaluation(every=100),
        checkpoints=Checkpoints(every=250),
        samples=Samples(tokens=0),
        logging=Logging(every=10),
    )
