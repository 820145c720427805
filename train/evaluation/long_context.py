"""How well a model uses a long context: its loss by position, and whether it finds a needle in a haystack."""

import dataclasses
import string
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from data.errors import UserError
from data.files import json_files
from data.text.shards import Corpus
from data.tokenizer import Tokenizer
from model.heads import Head, score_tokens, vocabulary_table
from train.checkpoints.checkpointer import load_parameters
from train.devices.mesh import check_batch, inference_mesh, put_batch, row_shards
from train.generation.text import decoder_of
from train.kinds import Family
from train.runs.directory import Run
from train.sources.text import text_dataset
from train.step.update import compiler_options, on_mesh

KEY_LETTERS, DEPTHS, HAY = 6, (0.0, 0.25, 0.5, 0.75, 1.0), 16


@dataclasses.dataclass(frozen=True)
class Measured:
    """A run ready to be measured: its checkpoint on a mesh, at a context length that need not be the one of training."""

    model: Family
    params: object
    mesh: jax.sharding.Mesh
    step: int
    rows: int
    """Rows at once."""


def load(run: Run, *, context_length: int = 0, batch_size: int = 0, step: int | None = None, raw: bool = False) -> Measured:
    """The run's checkpoint for rows of `context_length` tokens (0: as in training). UserError when its positions do not reach so far."""
    experiment = run.experiment
    config = experiment.model
    length = context_length or config.context_length
    if length < 1:
        raise UserError(f"--context-length is {length}; it must be positive")
    if config.positions == "learned" and length > config.context_length:
        raise UserError(
            f"context length {length}: the model has learned {config.context_length} positions and knows no others",
            f"Measure up to {config.context_length}, or a model with rotary positions, which reach any length.",
        )
    mesh = inference_mesh(experiment.mesh)
    rows = batch_size or experiment.batch_size // experiment.micro_batches
    rows = -(-rows // row_shards(mesh)) * row_shards(mesh)
    check_batch(mesh, rows, 1, length)
    params, step = load_parameters(run, mesh, step=step, raw=raw)
    if config.positions == "rotary":  # no parameter depends on it
        config = dataclasses.replace(config, context_length=length)
    model = decoder_of(dataclasses.replace(run, experiment=dataclasses.replace(experiment, model=config)))
    return Measured(model, params, mesh, step, rows)


def scores(measured: Measured, params, batch, last: int = 0):
    """score_tokens over a batch, or over the `last` positions of its rows: nll and hit."""
    hidden_BTD = measured.model.apply(
        {"params": params}, batch["tokens"], segments_BT=batch["segments"], positions_BT=batch["positions"]
    ).hidden_BTD[:, -last:]
    head, softcap = Head(hidden_BTD, vocabulary_table(params)), measured.model.config.logit_softcap
    return score_tokens(head, batch["targets"][:, -last:], want=("nll", "hit"), softcap=softcap, shards=row_shards(measured.mesh))


def compiled(measured: Measured, function):
    return on_mesh(jax.jit(function, compiler_options=compiler_options(measured.mesh.devices.flat[0].platform)), measured.mesh)


# ------------------------------------------------------------------------------------------------------------- loss by position


def bucket_starts(length: int) -> list[int]:
    """Positions where the buckets begin: 0, 1, 2, 4, 8, ... below `length`."""
    return [0, *(1 << power for power in range((length - 1).bit_length()))]


def evaluate_by_position(
    run: Run, corpora: Sequence[Corpus], *, context_length: int = 0, split: str = "validation", rows: int = 0, **which
):
    """Mean nats per token by the number of tokens of its document that the model sees before it, over a split.

    rows: of each corpus, from its start; 0 takes all. which: batch_size, step, raw of `load`. Returns {"step", "split",
    "context_length", "loss", "tokens", "by_position": [{"first", "last", "loss", "tokens"}, ...]}, the buckets being the positions 0, 1,
    2-3, 4-7, ...; one without tokens is left out.
    """
    measured = load(run, context_length=context_length, **which)
    length = context_length or run.experiment.model.context_length
    starts = bucket_starts(length)

    def sums(params, batch):
        bucket_BT = jnp.searchsorted(jnp.array(starts), batch["positions"], side="right") - 1
        of_bucket = jax.nn.one_hot(bucket_BT, len(starts)) * batch["weights"][..., None]
        return (of_bucket * scores(measured, params, batch).nll[..., None]).sum((0, 1)), of_bucket.sum((0, 1))

    sums = compiled(measured, sums)
    nats, tokens = np.zeros(len(starts)), np.zeros(len(starts))
    for corpus in corpora:
        if not corpus.manifest["splits"].get(split, {}).get("documents"):
            continue
        batches = text_dataset(run.experiment).in_order([corpus], split, length)
        count = min(rows or batches.rows_per_epoch, batches.rows_per_epoch)
        for first in range(0, count, measured.rows):

            def make(start, size, first=first, batches=batches, count=count):
                batch = batches.batch(first + start, size)._asdict()
                inside = (first + start + np.arange(size) < count).astype(np.float32)
                return batch | {"weights": batch["weights"] * inside[:, None]}

            more = jax.device_get(sums(measured.params, put_batch(measured.mesh, make, measured.rows)))
            nats, tokens = nats + np.asarray(more[0], np.float64), tokens + np.asarray(more[1], np.float64)
    if not tokens.sum():
        raise UserError(f"no {split} split in {', '.join(corpus.path for corpus in corpora)}", "Prepare with --validation 0.1.")
    ends = [*starts[1:], length]
    by_position = [
        {"first": first, "last": end - 1, "loss": float(nat / token), "tokens": int(token)}
        for first, end, nat, token in zip(starts, ends, nats, tokens, strict=True)
        if token
    ]
    whole = {"loss": float(nats.sum() / tokens.sum()), "tokens": int(tokens.sum())}
    return {"step": measured.step, "split": split, "context_length": length} | whole | {"by_position": by_position}


# ----------------------------------------------------------------------------------------------------------- needle in a haystack


@dataclasses.dataclass(frozen=True)
class Haystack:
    """Makes rows that hide a needle: a sentence with a random key, somewhere in real text, and at the end the sentence again up to its
    key, which is to be predicted (Kamradt 2023).

    text: the needle, with {} where the key goes. The key is of random letters that the tokenizer can write. Sentence and key are encoded
    apart, so that the key is the same tokens in both places.
    """

    tokenizer: Tokenizer
    corpus: Corpus
    split: str = "validation"
    text: str = "The secret word is {}."

    def __post_init__(self):
        if self.text.count("{}") != 1:
            raise UserError(f"--needle-text {self.text!r}: must hold {{}} once, where the key goes", 'As in "The secret word is {}."')
        if not self.corpus.manifest["splits"].get(self.split, {}).get("documents"):
            raise UserError(f"no {self.split} split in {self.corpus.path}", "Prepare with --validation 0.1.")

    def letters(self) -> str:
        """What keys are made of: small Latin letters, or the letters of the alphabet of a tokenizer of characters without those."""
        known = getattr(self.tokenizer, "characters", string.ascii_lowercase)
        letters = [letter for letter in string.ascii_lowercase if letter in known] or [letter for letter in known if letter.isalpha()]
        if len(letters) < 2:
            raise UserError("the tokenizer writes fewer than two letters, of which keys are made", "Prepare other text.")
        return "".join(letters)

    def row(self, rng: np.random.Generator, length: int, depth: float) -> tuple[np.ndarray, int]:
        """ids [length + 1], which end in the key, and the number of tokens of the key. depth: 0 hides it at the start, 1 at the end.

        The hay is consecutive text of the split from a random place on, documents joined without their ends.
        """
        before, after = self.text.split("{}")
        key = self.tokenizer.encode("".join(rng.choice(list(self.letters()), KEY_LETTERS)))
        opening = self.tokenizer.encode("\n" + before) if self._writes("\n") else self.tokenizer.encode(" " + before)
        closing = self.tokenizer.encode(after + " ")
        end = self.corpus.document_end
        start = [] if end is None else [end]
        hay = length + 1 - len(start) - 2 * len(opening) - 2 * len(key) - len(closing)
        if hay < HAY:
            raise UserError(
                f"a context of {length} tokens has no room for the needle and {HAY} tokens of hay: that takes {length - hay + HAY}",
                "Give a longer --context-length, or a shorter --needle-text.",
            )
        straw, cut = self._hay(rng, hay), round(depth * hay)
        return np.concatenate([start, straw[:cut], opening, key, closing, straw[cut:], opening, key]).astype(np.int32), len(key)

    def fits(self, length: int) -> bool:
        """Whether a row of `length` tokens has room for a needle, whatever its key, and as much hay as needle."""
        needle = len(self.tokenizer.encode(self.text)) + 2 * KEY_LETTERS
        return length >= 4 * needle

    def _writes(self, character: str) -> bool:
        return character in getattr(self.tokenizer, "characters", character)

    def _hay(self, rng: np.random.Generator, count: int) -> np.ndarray:
        split, end = self.corpus.split(self.split), self.corpus.document_end
        document = int(rng.choice(split.documents, p=split.lengths / split.lengths.sum()))
        start, parts, found = int(rng.integers(split.lengths[document])), [], 0
        while found < count:
            ids = split.read(document, start, min(int(split.lengths[document]), start + count - found + 1))
            ids = ids[ids != end] if end is not None else ids
            parts.append(ids[: count - found])
            found += len(parts[-1])
            document, start = (document + 1) % split.documents, 0
        return np.concatenate(parts)


def find_needles(score: Callable, haystack: Haystack, lengths: Sequence[int], *, samples: int, seed: int = 0) -> list[dict]:
    """Score a model on rows of `lengths` tokens, `samples` at each depth.

    score(ids [N, T + 1], last) gives nll and hit, both [N, last], of the last tokens of each row given all before them. Returns for each
    length and depth: {"length", "depth", "log_prob": mean nats per token of the key, "accuracy": share of the key's tokens that the model
    finds most likely, "exact": share of keys with all of them}.
    """
    cells = []
    for length in lengths:
        made = [
            haystack.row(np.random.default_rng([seed, length, place, sample]), length, depth)
            for place, depth in enumerate(DEPTHS)
            for sample in range(samples)
        ]
        counts = np.array([count for _, count in made])
        nll, hit = (np.asarray(x, np.float64) for x in score(np.stack([ids for ids, _ in made]), int(counts.max())))
        of_key = np.arange(counts.max())[::-1] < counts[:, None]
        for place, depth in enumerate(DEPTHS):
            at = slice(place * samples, (place + 1) * samples)
            key = of_key[at]
            cells.append(
                {
                    "length": length,
                    "depth": depth,
                    "log_prob": float(-(nll[at] * key).sum() / key.sum()),
                    "accuracy": float((hit[at] * key).sum() / key.sum()),
                    "exact": float(((hit[at] > 0) | ~key).all(1).mean()),
                }
            )
    return cells


def evaluate_needle(
    run: Run,
    corpus: Corpus,
    *,
    context_length: int = 0,
    split: str = "validation",
    text: str = "The secret word is {}.",
    samples: int = 8,
    seed: int = 0,
    **which,
) -> dict:
    """Find needles in the run's own text, at up to four lengths, each half of the next, and five depths; draw plots/needle.png.

    which: batch_size, step, raw of `load`. Returns {"step", "split", "context_length", "samples", "accuracy", "log_prob", "needle": the
    cells of `find_needles`}, also written to needle.json in the run directory.
    """
    if samples < 1:
        raise UserError("--samples must be positive")
    figure = _figure()
    measured = load(run, context_length=context_length, **which)
    longest = context_length or run.experiment.model.context_length
    haystack = Haystack(run.tokenizer(), corpus, split, text)
    lengths = [length for length in (longest // 8, longest // 4, longest // 2) if haystack.fits(length)] + [longest]

    def score(ids: np.ndarray, last: int):
        rows = measured.rows
        step, found = compiled(measured, lambda params, batch: scores(measured, params, batch, last)), []
        for first in range(0, len(ids), rows):
            part = ids[np.arange(first, first + rows) % len(ids)]

            def make(start, size, part=part):
                tokens = part[start : start + size]
                shape = (size, tokens.shape[1] - 1)
                positions = np.broadcast_to(np.arange(shape[1], dtype=np.int32), shape)
                return {"tokens": tokens[:, :-1], "targets": tokens[:, 1:], "segments": np.ones(shape, np.int32), "positions": positions}

            scored = step(measured.params, put_batch(measured.mesh, make, rows))
            found.append(jax.device_get((scored.nll, scored.hit)))
        return tuple(np.concatenate(each)[: len(ids)] for each in zip(*found, strict=True))

    cells = find_needles(score, haystack, lengths, samples=samples, seed=seed)
    result = {"step": measured.step, "split": split, "context_length": longest, "samples": samples}
    result |= {name: float(np.mean([cell[name] for cell in cells])) for name in ("accuracy", "log_prob")} | {"needle": cells}
    json_files.write(run.path / "needle.json", result)
    draw_needle(figure, cells, run.path / "plots" / "needle.png")
    return result


def _figure():
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        raise UserError("the picture of --needle needs matplotlib", "pip install 'omnia[plots]'") from None
    return Figure(figsize=(6.4, 3.4), dpi=150, layout="constrained")


def draw_needle(figure, cells: list[dict], path: Path) -> None:
    """A heat map of accuracy: lengths from left to right, depths from the start of the text down to its end."""
    lengths, depths = (sorted({cell[name] for cell in cells}) for name in ("length", "depth"))
    values = {(cell["length"], cell["depth"]): cell["accuracy"] for cell in cells}
    grid = np.array([[values[length, depth] for length in lengths] for depth in depths])
    axes = figure.subplots()
    image = axes.imshow(grid, cmap="viridis", vmin=0, vmax=1, aspect="auto")
    for (row, column), value in np.ndenumerate(grid):
        axes.text(column, row, f"{value:.2f}", ha="center", va="center", color="black" if value > 0.6 else "white")
    axes.set_xticks(range(len(lengths)), [f"{length:,}" for length in lengths])
    axes.set_yticks(range(len(depths)), [f"{depth:.0%}" for depth in depths])
    axes.set_xlabel("length of the text, tokens")
    axes.set_ylabel("depth of the needle")
    figure.colorbar(image, label="share of the key's tokens predicted")
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, metadata={"Software": None})
