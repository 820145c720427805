"""From trained codebooks to ids in a vocabulary: `omnia prepare codes`."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np

from data.errors import UserError
from data.media.codes import MediaCodes
from data.media.kinds import Kind
from data.media.signals.shapes import AudioShape
from data.tokenizer import byte_tokenizer, load_tokenizer, with_codes
from train.checkpoints.checkpointer import load_parameters
from train.objectives.media.options import Codebook
from train.runs.directory import Run, open_run
from train.sources.media.shapes import shapes_of


@dataclasses.dataclass(frozen=True)
class PrepareCodes:
    """Make a tokenizer that also holds the codes of images, clips or recordings, so that a decoder can generate them."""

    output: str
    """Folder to write, for --data.tokenizer."""
    runs: tuple[str, ...] = ()
    """Runs with the objective Codebook, one for each kind of media."""
    tokenizer: str = "byte"
    """Text tokenizer: byte, or a file or directory as for `omnia prepare text`."""


def prepare_codes(options: PrepareCodes) -> None:
    """UserError for a run that trained no codebook, or an output that is there."""
    output = Path(options.output)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UserError(f"{output}: is there already", "Choose another --output, or remove it.")
    if not options.runs:
        raise UserError("omnia prepare codes: which codebooks?", "Give runs that trained some: --runs RUN [RUN ...].")
    tokenizer = byte_tokenizer() if options.tokenizer == "byte" else load_tokenizer(options.tokenizer)
    added: dict[Kind, MediaCodes] = {}
    for path in options.runs:
        codes = codes_of(open_run(path))
        if codes.kind in added:
            raise UserError(f"{path}: is the second codebook for {codes.kind}", "Give one of each kind.")
        added[codes.kind] = codes
    whole = with_codes(tokenizer, added)
    whole.save(str(output))
    for codes in whole.codes.values():
        first, last = codes.ids
        print(f"{codes.kind}: {codes.size} codes, ids {first} to {last - 1}, {codes.most} at most for one medium")
    print(f"{output}: {whole.size} ids")


def codes_of(run: Run) -> MediaCodes:
    """The codebook that a run trained, with ids from 0."""
    objective = run.experiment.objective
    if not isinstance(objective, Codebook):
        raise UserError(f"{run.path}: its objective is {type(objective).__name__}", "Give a run whose objective is Codebook.")
    params, _ = load_parameters(run)
    shape: Any = dataclasses.replace(shapes_of(run.experiment)[objective.medium], block=1, latents=0, inline=True)
    if not isinstance(shape, AudioShape):
        shape = dataclasses.replace(shape, square=True)  # or the number of codes would not tell rows from columns
    leaves, _ = jax.tree_util.tree_flatten_with_path(params)
    weights = {"/".join(str(key.key) for key in path): np.asarray(leaf, np.float32) for path, leaf in leaves}
    return MediaCodes(shape, weights, 0)
