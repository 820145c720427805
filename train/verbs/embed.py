"""`omnia embed`: the vectors of texts."""

import dataclasses
import io
from typing import Literal

import numpy as np
import tyro

from data.errors import UserError
from data.files import storage
from data.files.text_files import read_text, split_lines
from train.verbs.arguments import parse, start_jax


@dataclasses.dataclass(frozen=True)
class Embed:
    """Write an embedding of each line of a file, as a NumPy .npy file, float32 [lines, width], each of unit length."""

    run_dir: tyro.conf.Positional[str]
    """Folder of the run, an encoder or a decoder."""
    texts: str
    """File with a text on each line."""
    output: str
    """File to write, which ends in .npy."""
    pool: Literal["mean", "first", "last", "pooler"] | None = None
    """How hidden states become a vector: their mean, the first or last one, or the pooler's output for the first. Default: as an imported
    model's authors do, else the mean."""
    max_tokens: int = 0
    """Tokens read of each text. 0: as many as an imported model's authors read, else the model's context."""
    step: int | None = None
    """Checkpoint to use. Default: the latest."""
    raw: bool = False
    """Use the trained parameters even if an average is kept."""


def embed(arguments: list[str]) -> None:
    options = parse(Embed, "embed", arguments)
    if not options.output.endswith(".npy"):
        raise UserError(f"{options.output}: vectors are written as a .npy file", "Give a name that ends in .npy.")
    if options.max_tokens < 0 or options.max_tokens in (1, 2):
        raise UserError("omnia embed: --max-tokens must be 3 or more, for a text stands between a start and an end", "0 takes the context.")
    lines = split_lines(read_text(options.texts))
    if not lines:
        raise UserError(f"{options.texts}: holds no text", "Write one on each line.")
    from train.runs.directory import open_run

    run = open_run(options.run_dir)
    start_jax()
    from train.generation.embeddings import load_embedder

    embedder = load_embedder(run, step=options.step, raw=options.raw, pool=options.pool, most=options.max_tokens)
    storage.write_atomically(options.output, _npy(embedder(lines)))
    print(f"{options.output}: {len(lines)} vectors")


def _npy(vectors: np.ndarray) -> bytes:
    content = io.BytesIO()
    np.save(content, vectors)
    return content.getvalue()
