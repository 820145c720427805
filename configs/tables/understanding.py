"""Which pretraining makes the best vectors of texts: BERT's ablation, GPT's next token and ELECTRA, at equal steps and size.

omnia reproduce understanding
The text is the source of this Python's standard library; a linear probe tells by vectors which of its packages a piece of code comes from.
"""

import ast
import json
import random
import sys
from pathlib import Path

from model.config import ModelConfig
from model.text_encoder_config import TextEncoderConfig
from train.experiment import CausalLM, Checkpoints, Evaluation, Experiment, Muon, Samples, Schedule, TextData
from train.objectives.text.options import MaskedLM, ReplacedTokens
from train.reproduce.table import Better, Metric, Row, Shared, Table, training
from train.sources.pairs import SentencePairData

SHAPE = {"context_length": 128, "num_layers": 2, "embed_dim": 96, "num_heads": 4, "positions": "rotary", "norm": "rmsnorm", "bias": False}
PACKAGES = (
    "asyncio",
    "ctypes",
    "email",
    "encodings",
    "http",
    "importlib",
    "json",
    "logging",
    "multiprocessing",
    "tkinter",
    "unittest",
    "xml",
)
LINES = {"short": 2, "long": 16}
"""Lines of code of a text."""
ROWS = {
    "masked": "BERT without next sentences: masked tokens",
    "masked_pairs": "BERT: masked tokens and next sentences",
    "next": "GPT, left to right: the next token",
    "replaced": "ELECTRA: which tokens a generator replaced",
}


def get_config(arg: str = "masked") -> Experiment:
    encoder = TextEncoderConfig(**SHAPE, token_types=2 if arg == "masked_pairs" else 0, pooler=arg == "masked_pairs")
    objectives = {"next": CausalLM(), "replaced": ReplacedTokens(generator_size=0.5), "masked_pairs": MaskedLM(sentence_pairs=1.0)}
    return Experiment(
        name=f"understanding, {arg}",
        steps=300,
        batch_size=24,
        data=SentencePairData() if arg == "masked_pairs" else TextData(),
        model=ModelConfig(**SHAPE) if arg == "next" else encoder,
        objective=objectives.get(arg, MaskedLM()),
        optimizer=Muon(),
        schedule=Schedule(warmup_steps=20, decay="linear", final_fraction=0.0),
        evaluation=Evaluation(every=0, rows=64),
        checkpoints=Checkpoints(every=0),
        samples=Samples(tokens=0),
    )


def get_table() -> Table:
    probe = "python -m train.evaluation.probe {run} {library}/probe.jsonl"
    return Table(
        title="BERT's ablation, GPT and ELECTRA",
        paper="Devlin et al. 2019 (BERT), table 5; Clark et al. 2020 (ELECTRA), figure 1",
        claim="Reading both ways makes better vectors than left to right; next sentences and ELECTRA help; GPT is best on long texts.",
        metrics=(
            Metric("accuracy", "accuracy", "share", lower_is_better=False),
            Metric("accuracy_short", "short texts", "share", lower_is_better=False),
            Metric("accuracy_long", "long texts", "share", lower_is_better=False),
        ),
        shared=(Shared("library", ("python {table} {run}",)),),
        rows=tuple(
            Row(
                name,
                what,
                (training(f"{{table}}:{name}", "--data.shards {library}/corpus"), probe),
            )
            for name, what in ROWS.items()
        ),
        claims=(
            Better("masked", "next"),
            Better("masked_pairs", "masked"),
            Better("replaced", "masked"),
            Better("next", "masked", metric="long texts"),
        ),
        note=f"2 layers of 96, 300 steps of 24 x 128 tokens. A probe tells which of {len(PACKAGES)} library packages a text is "
        f"from; short ones have {LINES['short']} lines, long ones {LINES['long']}. At equal steps ELECTRA also pays for its generator. The "
        "last claim is what popular overviews say of GPT and BERT, and no paper's.",
    )


def prepare(folder: Path) -> None:
    """The corpus, of all files but those of the probe, and the probe."""
    from data.text.prepare import PrepareText, prepare_text
    from train.verbs.quickstart import standard_library

    folder.mkdir(parents=True, exist_ok=True)
    files = {path: next((name for name in PACKAGES if name in Path(path).parts), "") for path in standard_library()}
    draw, rows = random.Random(0), []
    for path, package in files.items():
        text = Path(path).read_text(errors="ignore")
        try:
            ast.parse(text)
        except (SyntaxError, ValueError):
            continue
        lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
        held_out = draw.random() < 0.3
        for kind, count in LINES.items():
            places = range(0, len(lines) - count, 3 * LINES["long"])
            rows += [
                {"text": "\n".join(lines[place : place + count]), "label": package, "held_out": held_out, "kind": kind}
                for place in (draw.sample(places, min(len(places), 12)) if package else ())
            ]
    (folder / "probe.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    unlabelled = tuple(path for path, package in files.items() if not package)
    options = {"input": unlabelled, "tokenizer": "sentencepiece:2048", "validation": 0.05, "max_damaged": 50}
    prepare_text(PrepareText(output=str(folder / "corpus"), **options))


if __name__ == "__main__":
    prepare(Path(sys.argv[1]))
