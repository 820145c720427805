"""What is explained: one number that a model gives for one text, as a function of its tokens, of their vectors, and of which are there."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from data.errors import UserError
from model.heads import Head, logits, vocabulary_table
from model.text import vectors_of
from model.transformer import Decoder
from train.checkpoints.checkpointer import load_parameters
from train.devices.mesh import inference_mesh
from train.explain.inside import logit_lens
from train.generation.text import decoder_of
from train.objectives.bind import bind
from train.runs.directory import Run
from train.sources.dataset import dataset_of
from train.tasks.classification import Classification, ClassificationDataset
from train.tasks.examples import Example
from train.tasks.rows import HeadBatch

AT_ONCE = 16
"""Rows of a forward pass."""
LONGEST = 1024
"""Tokens of a text: more make methods that ask for each of them take hours."""


@dataclasses.dataclass
class Subject:
    """ids_T: the text. texts: what each token is, to be shown. free_T: bool, those that are explained; others mark beginnings and ends.
    baseline: the token that stands where one is taken away. answer, against: what the number is of, in words. With `against` empty it is
    the log-odds of the answer, log p - log(1 - p), in nats, which do not level off where p is near 1; else log p less that of the other.

    score(params, ids_BT, shift_BTW) -> float32 [B] is traced; shift_BTW, or None, is added to the vectors of tokens, vectors(ids_T) float32
    [T, W]. attention(ids_T) -> float32 [L, H, T, T], a row adds up to one; reader: the place whose attention counts in the end. lens():
    what each layer of a decoder would answer, as `explain` gives it; None for other models.
    """

    ids_T: np.ndarray
    texts: list[str]
    free_T: np.ndarray
    baseline: int
    answer: str
    against: str
    params: Any
    score: Callable[[Any, Any, Any], Any]
    vectors: Callable[[Any], Any]
    attention: Callable[[Any], np.ndarray]
    reader: int
    lens: Callable[[], list[dict[str, Any]]] | None = None

    def gradient(self, shift_BTW):
        """The number float32 [B], and its derivative by the vectors, [B, T, W], where they are moved by shift_BTW."""
        ids_BT = jnp.broadcast_to(jnp.asarray(self.ids_T), shift_BTW.shape[:2])
        return _programs(self.score)[1](self.params, ids_BT, shift_BTW)

    def values(self, kept_NT) -> np.ndarray:
        """float64 [N]: the number when only these tokens are there, bool [N, T]; what is not free always is."""
        kept_NT = np.asarray(kept_NT, bool) | ~self.free_T
        found = []
        for first in range(0, len(kept_NT), AT_ONCE):
            part = kept_NT[first : first + AT_ONCE]
            ids = np.where(part, self.ids_T, self.baseline).astype(np.int32)
            ids = np.concatenate([ids, np.repeat(ids[-1:], AT_ONCE - len(ids), 0)])
            found.append(np.asarray(_programs(self.score)[0](self.params, ids, None), np.float64)[: len(part)])
        return np.concatenate(found)


@functools.lru_cache(maxsize=8)
def _programs(score) -> tuple[Any, Any]:
    """(score, it and its derivative by the shift), compiled once for all texts of a length."""

    def summed(params, ids_BT, shift_BTW):
        score_B = score(params, ids_BT, shift_BTW)
        return score_B.sum(), score_B

    def slope(params, ids_BT, shift_BTW):
        (_, score_B), derivative_BTW = jax.value_and_grad(summed, argnums=2, has_aux=True)(params, ids_BT, shift_BTW)
        return score_B, derivative_BTW

    return jax.jit(score), jax.jit(slope)


def subject_of(run: Run, prompt: str, *, pair: str = "", answer: str = "", against: str = "", step: int | None = None) -> Subject:
    """Of a run that continues texts: the token after `prompt`. Of a classifier with a head: the label of the text `prompt`, or of it and
    `pair`. answer, against: that token or label and another one; empty: what the model finds most likely, and none.

    UserError for other runs, for an empty or too long text, and for answers that are none.
    """
    params = load_parameters(run, inference_mesh(run.experiment.mesh), step=step)[0]
    data = run.experiment.data
    if isinstance(data, Classification) and dataset_of(run.experiment).way == "head":  # type: ignore[attr-defined]
        return _of_classifier(run, params, prompt, pair, answer, against)
    if pair:
        raise UserError("--pair is for runs that classify pairs of texts", "Leave it out.")
    return _of_writer(run, params, prompt, answer, against)


def _another(against: int, answer: int, name: str) -> int:
    """UserError where both are the same."""
    if against == answer:
        raise UserError(f"--against {name!r} is the answer itself", "Name another, or leave it out.")
    return against


def odds(score_BV, answer: int, against: int | None):
    """Of logits: log-odds of one of several, against all others or against one."""
    if against is not None:
        return score_BV[:, answer] - score_BV[:, against]
    return score_BV[:, answer] - jax.nn.logsumexp(score_BV.at[:, answer].set(-jnp.inf), -1)


def _check_length(ids) -> None:
    if not len(ids):
        raise UserError("--prompt is empty", "Give a text.")
    if len(ids) > LONGEST:
        raise UserError(f"--prompt has {len(ids)} tokens, of which at most {LONGEST} are explained", "Give a shorter text.")


def _of_writer(run: Run, params, prompt: str, answer: str, against: str) -> Subject:
    model, tokenizer = decoder_of(run), run.tokenizer()
    if not isinstance(model, Decoder):
        what = f"{run.path}: a {type(model).__name__} is not explained yet"
        raise UserError(what, "Give a decoder, or an encoder with a head for classes.")
    own = tokenizer.encode(prompt)
    _check_length(own)
    start = [] if run.document_end is None else [tokenizer.document_start]
    ids_T = np.concatenate([start, own]).astype(np.int32)
    if len(ids_T) > model.config.context_length:
        raise UserError(f"--prompt has {len(own)} tokens; the model reads {model.config.context_length}", "Give a shorter text.")
    config, plain = model.config, Decoder(dataclasses.replace(model.config, scan=False, remat="none"))
    # A scan compiles in no time, but takes layers by groups, and shows no attention.
    quick = Decoder(dataclasses.replace(model.config, scan=not config.global_every, remat="none"))

    def scores(params, ids_BT, shift_BTW):
        hidden_BTD = quick.apply({"params": params}, ids_BT, shift_BTD=shift_BTW).hidden_BTD
        return logits(Head(hidden_BTD[:, -1], vocabulary_table(params)), softcap=config.logit_softcap)

    def token(text: str, option: str) -> int:
        found = tokenizer.encode_inside(text)
        if not len(found):
            raise UserError(f"{option} {text!r} has no token", "Give a text.")
        return int(found[0])

    likeliest = int(np.asarray(jax.jit(scores)(params, ids_T[None], None)[0].argmax()))
    chosen = token(answer, "--answer") if answer else likeliest
    other = _another(token(against, "--against"), chosen, against) if against else None

    def attention(ids_T):
        watched: list[Any] = []
        plain.apply({"params": params}, jnp.asarray(ids_T)[None], watch=watched)
        return np.asarray(jnp.stack(watched)[:, 0])

    def lens():
        found = logit_lens(config, params, ids_T, chosen)
        return [
            {
                "layer": layer,
                "answer": float(answer),
                "likeliest": [[tokenizer.decode([int(one)]), float(share)] for one, share in zip(ids, shares, strict=True)],
            }
            for layer, (ids, shares, answer) in enumerate(zip(*found, strict=True), 1)
        ]

    pieces = [tokenizer.decode([int(one)]) for one in ids_T]
    free_T = np.arange(len(ids_T)) >= len(start)
    return Subject(
        ids_T=ids_T,
        texts=["" if not free else text for free, text in zip(free_T, pieces, strict=True)],
        free_T=free_T,
        baseline=tokenizer.specials.get("mask", tokenizer.specials.get("padding", tokenizer.specials["document_end"])),
        answer=tokenizer.decode([chosen]),
        against="" if other is None else tokenizer.decode([other]),
        params=params,
        score=lambda params, ids_BT, shift_BTW: odds(scores(params, ids_BT, shift_BTW), chosen, other),
        vectors=lambda ids: vectors_of(config, params["embedding"]["table"], jnp.asarray(ids)),
        attention=attention,
        reader=len(ids_T) - 1,
        lens=lens,
    )


def _of_classifier(run: Run, params, prompt: str, pair: str, answer: str, against: str) -> Subject:
    dataset: Any = dataset_of(run.experiment)
    loss: Any = bind(run.experiment).loss
    assert isinstance(dataset, ClassificationDataset)
    if dataset.options.several:
        raise UserError(f"{run.path}: gives several labels at once, which is not explained yet", "Give a run with one label for a text.")
    if bool(pair) != bool(dataset.options.pair):
        what = "pairs of texts" if dataset.options.pair else "single texts"
        raise UserError(f"{run.path}: classifies {what}", f"{'Give' if dataset.options.pair else 'Leave out'} --pair.")
    tokenizer, names = run.tokenizer(), dataset.label_names
    _check_length(tokenizer.encode(prompt))
    item = dataset.item(Example({"text": prompt, "pair": pair}, None, "--prompt"), tokenizer, labelled=False)[0]
    ids_T, length = item.ids, len(item.ids)
    types_T = np.zeros(length, np.int32) if item.types is None else item.types
    config = run.experiment.model
    loss = dataclasses.replace(loss, model=dataclasses.replace(loss.model, config=dataclasses.replace(config, scan=False, remat="none")))

    def batch(ids_BT, shift_BTW):
        rows = ids_BT.shape[0]
        ones, zeros = jnp.ones((rows, length), jnp.int32), jnp.zeros((rows, 1), jnp.int32)
        positions, types = (jnp.broadcast_to(jnp.asarray(x), (rows, length)) for x in (np.arange(length, dtype=np.int32), types_T))
        return HeadBatch(ids_BT, ones, positions, types, zeros, zeros + 1.0, zeros, jnp.arange(rows), shift_BTW)

    def scores(params, ids_BT, shift_BTW, watch: list | None = None):
        made = batch(ids_BT, shift_BTW)
        more = {} if watch is None else {"watch": watch}
        return loss.logits(params, loss.read(params, made, None, **more), made)[:, 0]

    def label(name: str, option: str) -> int:
        if name not in names:
            raise UserError(f"{option} {name!r} is none of the run's labels", f"They are {', '.join(names)}.")
        return names.index(name)

    likeliest = int(np.asarray(jax.jit(scores)(params, ids_T[None], None)[0].argmax()))
    chosen = label(answer, "--answer") if answer else likeliest
    other = _another(label(against, "--against"), chosen, against) if against else None

    def attention(ids_T):
        watched: list[Any] = []
        scores(params, jnp.asarray(ids_T)[None], None, watched)
        return np.asarray(jnp.stack(watched)[:, 0])

    marks = {tokenizer.document_start, tokenizer.specials["document_end"]}
    free_T = ~np.isin(ids_T, list(marks))
    return Subject(
        ids_T=ids_T.astype(np.int32),
        texts=[tokenizer.decode([int(one)]) if free else "" for one, free in zip(ids_T, free_T, strict=True)],
        free_T=free_T,
        baseline=tokenizer.specials.get("mask", tokenizer.specials["document_end"]),
        answer=names[chosen],
        against="" if other is None else names[other],
        params=params,
        score=lambda params, ids_BT, shift_BTW: odds(scores(params, ids_BT, shift_BTW), chosen, other),
        vectors=lambda ids: vectors_of(config, params["embedding"]["table"], jnp.asarray(ids)),
        attention=attention,
        reader=0,
    )
