"""Texts written from texts: translation, summaries, corrections, instructions, programs; by a decoder or an encoder-decoder.

omnia train configs/tasks/writing.py --run-dir RUN --start MODEL --data.files train.jsonl --adapters lora
The argument says what is written: `configs/tasks/writing.py:summary`, translation, correction, instruction or code. Columns by default:
source and target; of instructions prompt and response, or messages; of code text, code and test_list, as MBPP has them.
"""

from model import OfStart
from train import (
    AdamW,
    Checkpoints,
    Conversations,
    Evaluation,
    Experiment,
    Logging,
    Programs,
    Samples,
    Schedule,
    SequenceToSequence,
    Supervised,
)

KINDS = {
    "": SequenceToSequence(length=256),
    "translation": SequenceToSequence(measures=("bleu", "chrf")),
    "summary": SequenceToSequence(length=512, written=96, prompt="{source}\nSummary:", measures=("rouge",)),
    "correction": SequenceToSequence(measures=("exact", "cer"), prompt="{source}\nCorrected:"),
    "instruction": Conversations(length=512, written=128),
    "code": Programs(length=384, written=192),
}


def get_config(arg: str = "") -> Experiment:
    if arg not in KINDS:
        raise ValueError(f"there is no {arg!r}; choose one of {', '.join(filter(None, KINDS))}")
    return Experiment(
        name=arg or "writing",
        steps=300,
        batch_size=16,
        model=OfStart(),
        data=KINDS[arg],
        objective=Supervised(),
        optimizer=AdamW(learning_rate=2e-4, weight_decay=0.0, beta2=0.999),
        schedule=Schedule(warmup_steps=20, decay="linear", final_fraction=0.0),
        evaluation=Evaluation(every=100, rows=64),
        checkpoints=Checkpoints(every=100),
        samples=Samples(tokens=0),
        logging=Logging(every=10),
    )
