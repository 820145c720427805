"""Texts written from texts: translation, summaries, corrections, instructions, programs; by a decoder or an encoder-decoder.

omnia train configs/tasks/writing.py --run-dir RUN --start MODEL --data.files train.jsonl --adapters lora
The argument says what is written: `configs/tasks/writing.py:summary`, translation, correction, instruction, code or completion. Columns by
default: source and target; of instructions prompt and response, or messages; of code text, code and test_list, as MBPP has them; of
completions prompt, canonical_solution and test, as HumanEval has them.
"""

from train import Conversations, Experiment, Programs, SequenceToSequence, fine_tuning

KINDS = {
    "": SequenceToSequence(length=256),
    "translation": SequenceToSequence(measures=("bleu", "chrf")),
    "summary": SequenceToSequence(length=512, written=96, prompt="{source}\nSummary:", measures=("rouge",)),
    "correction": SequenceToSequence(measures=("exact", "cer"), prompt="{source}\nCorrected:"),
    "instruction": Conversations(length=512, written=128),
    "code": Programs(length=384, written=192),
    "completion": Programs(
        source="prompt",
        target="canonical_solution",
        tests="test",
        with_source=True,
        stops=("\ndef", "\nclass", "\nif __name__", "\nprint(", "\nassert", "\n#"),
        length=640,
        written=256,
    ),
}


def get_config(arg: str = "") -> Experiment:
    if arg not in KINDS:
        raise ValueError(f"there is no {arg!r}; choose one of {', '.join(filter(None, KINDS))}")
    return fine_tuning(arg or "writing", KINDS[arg], steps=300, batch_size=16, rate=2e-4, weight_decay=0.0, dropout=0.0, every=100, rows=64)
