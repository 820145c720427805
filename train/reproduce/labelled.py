"""Labelled texts that several tables learn from, and the small pretrained encoder that they start from.

python -m train.reproduce.labelled texts FOLDER TREC_TRAIN TREC_TEST POSITIVE NEGATIVE writes trec_train.csv and the like.
python -m train.reproduce.labelled sentences FOLDER PLOTS QUOTES writes subjectivity_train.csv and subjectivity_test.csv.
python -m train.reproduce.labelled layers RUN COUNT OUTPUT writes a run of the lowest layers of another.
"""

import dataclasses
import secrets
import sys
from pathlib import Path

from data.errors import UserError
from data.files.text_files import is_whole
from data.records.writing import write_records
from train.reproduce.files import PublicFile
from train.reproduce.table import Shared

TREC = (
    PublicFile("trec_train", "trec_qc/train.txt", "016243a7ddb380241c94eabcf073a210b9a83a2e772347cb5ed844722a192faf"),
    PublicFile("trec_test", "trec_qc/test.txt", "033f22c028c2bbba9ca682f68ffe204dc1aa6e1cf35dd6207f2d4ca67f0d0e8e"),
)
"""Questions and what they ask for (Li & Roth 2002)."""
POLARITY = (
    PublicFile("positive", "mr_polarity/rt-polarity.pos", "c2dc6b2f55bcf725725372916287cc3f8f9b19402edaa9167de5287cb3ade421"),
    PublicFile("negative", "mr_polarity/rt-polarity.neg", "614274f81185a850e5a88d533d4679f916d6f62e9af6f0b4ec71fb94bf466ea5"),
)
"""Sentences of film reviews, good and bad (Pang & Lee 2005)."""
SUBJECTIVITY = (
    PublicFile("plots", "subjectivity/plot.tok.gt9.5000", "5ddc9b44dc60d64d651347fcd7bdd489b0c70661e3f768215c16eea36f51204a"),
    PublicFile("quotes", "subjectivity/quote.tok.gt9.5000", "cc5d85345896d3fa44ca6b826b108418030977f958a004eb97860043b3b37624"),
)
"""Sentences of plots and of reviews of films (Pang & Lee 2004)."""
FILES = (*TREC, *POLARITY)
TEXTS = Shared("texts", ("python -m train.reproduce.labelled texts {run} {trec_train} {trec_test} {positive} {negative}",))
"""trec_train.csv, trec_test.csv, polarity_train.csv and polarity_test.csv, with the columns text and label."""
SENTENCES = Shared("sentences", ("python -m train.reproduce.labelled sentences {run} {plots} {quotes}",))
"""subjectivity_train.csv and subjectivity_test.csv, with the columns text and label."""
ENCODER = Shared(
    "encoder", ("omnia import minilm --run-dir {run}/whole", "python -m train.reproduce.labelled layers {run}/whole 2 {run}/two")
)
"""{encoder}/two: the two lowest layers of MiniLM (Wang et al. 2020), small enough for minutes on a CPU."""
EVERY = 10
"""One sentence in so many is for testing."""


def write_texts(folder: str, trec_train: str, trec_test: str, positive: str, negative: str) -> None:
    """Questions have the coarse label before a colon; sentences are tested on as in the first of ten folds, by their line."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    for name, path in (("train", trec_train), ("test", trec_test)):
        lines = [line.partition(" ") for line in lines_of(path)]
        write_records(f"{folder}/trec_{name}.csv", [{"text": text, "label": label.partition(":")[0]} for label, _, text in lines])
    for name, rows in split_of({"positive": lines_of(positive), "negative": lines_of(negative)}).items():
        write_records(f"{folder}/polarity_{name}.csv", rows)


def write_sentences(folder: str, plots: str, quotes: str) -> None:
    """Whether a sentence is of a plot or of a review."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    for name, rows in split_of({"plot": lines_of(plots), "review": lines_of(quotes)}).items():
        write_records(f"{folder}/subjectivity_{name}.csv", rows)


def split_of(lines: dict[str, list[str]]) -> dict[str, list[dict[str, str]]]:
    """{"train", "test"} of the lines of each label: the first of every so many are for testing."""
    rows = [(number % EVERY == 0, {"text": line, "label": label}) for label, each in lines.items() for number, line in enumerate(each)]
    return {name: [row for held, row in rows if held is tested] for name, tested in (("train", False), ("test", True))}


def lines_of(path: str) -> list[str]:
    """Of a file of sentences, those that are not empty."""
    return [line.strip() for line in Path(path).read_bytes().decode("latin-1").split("\n") if line.strip()]


def write_lowest_layers(run_dir: str, count: int, output: str) -> None:
    """A run whose model is the lowest layers of another's, with all that is not in the layers."""
    import jax
    import numpy as np

    from train.bridge.importing import save_parameters
    from train.checkpoints.checkpointer import load_parameters
    from train.generation.chat import load_chat
    from train.runs.directory import open_run, write_run

    whole = open_run(run_dir)
    if not 0 < count < whole.experiment.model.num_layers:
        raise UserError(f"{run_dir}: has {whole.experiment.model.num_layers} layers", "Ask for fewer, at least one.")
    params, _ = load_parameters(whole)
    params = params | {"layers": jax.tree.map(lambda leaf: np.asarray(leaf)[:count], params["layers"])}
    model = dataclasses.replace(whole.experiment.model, num_layers=count)
    Path(output).mkdir(parents=True)
    whole.tokenizer().save(f"{output}/tokenizer")
    experiment = dataclasses.replace(whole.experiment, model=model)
    run = dataclasses.replace(whole, path=Path(output), experiment=experiment, identity=secrets.token_hex(8))
    write_run(run)
    save_parameters(run, params)
    load_chat(whole.path).save(run.path)  # which says how its authors make vectors of texts


def main(arguments: list[str]) -> int:
    try:
        if arguments[:1] == ["texts"] and len(arguments) == 6:
            write_texts(*arguments[1:])
        elif arguments[:1] == ["sentences"] and len(arguments) == 4:
            write_sentences(*arguments[1:])
        elif arguments[:1] == ["layers"] and len(arguments) == 4 and is_whole(arguments[2]):
            write_lowest_layers(arguments[1], int(arguments[2]), arguments[3])
        else:
            print(__doc__, file=sys.stderr)
            return 2
    except (UserError, OSError) as error:
        print(f"omnia: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
