"""`omnia inspect`: a folder of shards, or the shards of a run as that run sees them."""

import dataclasses
from pathlib import Path
from typing import Any

import tyro

from data.errors import UserError
from data.files import json_files
from train.verbs.arguments import check_batch_fits, check_belongs, parse


@dataclasses.dataclass(frozen=True)
class Inspect:
    """Show a folder of shards, or the data of a run as the run sees it."""

    path: tyro.conf.Positional[str]
    """Folder made by `omnia prepare`, or a run directory."""
    json: bool = False
    """Print one line of JSON."""
    split: str = "train"
    """Split to show: train or validation."""
    samples: int = 3
    """Documents to show, decoded."""
    step: int | None = None
    """Also show the rows of this training step (from 0), as the model sees them. For a run that has rewound, use --row."""
    row: int | None = None
    """Also show one step's rows from this row on. Reports of bad steps give such row numbers."""
    batch_size: int = 8
    """Rows of a step (a run's own when given a run)."""
    context_length: int = 512
    """Length of a row (a run's own when given a run)."""
    seed: int = 0
    """Seed of the order of rows (a run's own when given a run)."""
    media: str | None = None
    """Draw a contact sheet to this file (.png): the samples of a media folder, or the inputs of a media run at --step or --row."""


def inspect(arguments: list[str]) -> None:
    options = parse(Inspect, "inspect", arguments)
    if min(options.step or 0, options.row or 0, options.samples) < 0 or min(options.batch_size, options.context_length) < 1:
        raise UserError("omnia inspect: --step, --row and --samples must be 0 or more, --batch-size and --context-length positive")
    check_batch_fits("inspect", options.batch_size, options.context_length)
    if options.step is not None and options.row is not None:
        raise UserError("omnia inspect: --step and --row both say which rows to show", "Give one of them.")
    from train.runs.directory import is_run

    own = (not is_run(Path(options.path)), "is a run's own, and cannot be chosen for one")
    check_belongs("inspect", options, context_length=own, seed=own)
    if options.media is not None:
        of_rows = (not own[0], "is of rows that a run is fed; of a folder of media 24 samples are drawn, in even distances")
        rows = dict.fromkeys(("step", "row", "batch_size", "context_length", "seed"), of_rows)
        check_belongs("inspect", options, samples=(False, "is of texts, and does not go with --media"), **rows)
        if not options.media.lower().endswith(".png"):
            raise UserError(f"{options.media}: a contact sheet is a .png file", "Give a name that ends in .png.")
        return _draw_media(options)
    check_belongs("inspect", options, batch_size=own)
    _show_text(options)


def _show_text(options: Inspect) -> None:
    """Counts and samples of each corpus, and the rows that are asked for."""
    from data.text.batches import Batches
    from data.text.inspect import decoded_rows, inspect_corpus, print_inspection
    from data.text.shards import Corpus
    from train.runs.directory import is_run, open_run
    from train.sources.text import text_data

    paths, length = [options.path], options.context_length
    size, seed = options.batch_size, options.seed
    weights: tuple[float, ...] = ()
    fim_rate = 0.0
    if is_run(Path(options.path)):
        run = open_run(options.path)
        experiment, data = run.experiment, text_data(run.experiment)
        run.corpora()  # which are what it was started with, or a line says where they may be
        paths, weights, fim_rate = list(data.shards), data.weights, data.fim_rate
        length, size, seed = experiment.model.context_length, experiment.batch_size, experiment.seed
    row = options.row if options.step is None else options.step * size
    alone: dict[str, Any] = {"first_row": row, "batch_size": size, "seed": seed, "fim_rate": fim_rate} if len(paths) == 1 else {}
    found = [inspect_corpus(path, split=options.split, samples=options.samples, context_length=length, **alone) for path in paths]
    if row is not None and not alone:  # the rows of a mixture
        corpora = [Corpus(path) for path in paths]
        batches = Batches(corpora, weights=weights, split=options.split, context_length=length, seed=seed, fim_rate=fim_rate)
        found[-1] |= {"step_rows": decoded_rows(batches, corpora[0].tokenizer(), row, size)}
    if options.step is not None:
        found[-1] |= {"step": options.step}
    for corpus in found:
        print(json_files.dumps(corpus)) if options.json else print_inspection(corpus)


def _draw_media(options: Inspect) -> None:
    """The contact sheet of what a run is fed, or of a folder's samples in even distances."""
    import numpy as np

    from data.media.contact_sheet import cells_of_batch, cells_of_split, draw_sheet
    from data.media.shards import MediaCorpus
    from train.runs.directory import is_run, open_run
    from train.sources.dataset import dataset_of

    assert options.media is not None
    if is_run(Path(options.path)):
        run = open_run(options.path)
        dataset, size = dataset_of(run.experiment), run.experiment.batch_size
        if not dataset.shows_media:
            raise UserError(f"{options.path}: is trained on no media", "Leave --media out.")
        batches = dataset.batches(run.corpora(), options.split)
        first = options.row if options.row is not None else (options.step or 0) * size
        cells = cells_of_batch(batches, first, min(size, options.batch_size))
    else:
        corpus = MediaCorpus(options.path)
        split = corpus.split(options.split)
        cells = cells_of_split(split, np.linspace(0, split.samples - 1, min(24, split.samples)).astype(int), corpus.classes)
    sheet = draw_sheet(cells)
    try:
        sheet.save(options.media, "PNG")
    except OSError as error:
        raise UserError(f"{options.media}: {error}", "Give the path of a file to write.") from None
    print(json_files.dumps({"media": options.media, "samples": len(cells)}) if options.json else options.media)
