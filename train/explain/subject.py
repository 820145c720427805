"""What is explained: one number that a model gives for one text, as a function of its tokens, of their vectors, and of which are there."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from data.errors import UserError
from data.tokenizer import Tokenizer
from model.encoder_decoder import EncoderDecoder, SourceText
from model.heads import Head, logits, vocabulary_table
from model.text import vectors_of
from model.text_encoder_config import TextEncoderConfig
from model.transformer import Decoder
from train.checkpoints.checkpointer import load_parameters
from train.explain.inside import logit_lens
from train.generation.chat import load_chat
from train.generation.text import decoder_of
from train.objectives.bind import bind
from train.objectives.distillation import Distillation
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
    baseline: the token that stands where one is taken away. answer, against: what the number is of, in words; number: the answer's token
    id, or the place of its label. With `against` empty it is the log-odds of the answer, log p - log(1 - p), in nats, which do not level
    off where p is near 1; else how much larger the answer's logit is than the other's, log p less log p of the other where both exclude
    each other.

    score(params, ids_BT, shift_BTW) -> float32 [B] is traced; shift_BTW, or None, is added to the vectors of tokens, vectors(params, ids_T)
    float32 [T, W]. attention(params, ids_T) -> float32 [L, H, T, T], a row adds up to one; reader: the place whose attention counts in the
    end; None for models that do not show it. lens(): what each layer of a decoder would answer, as `explain` gives it; None for other
    models.
    """

    ids_T: np.ndarray
    texts: list[str]
    free_T: np.ndarray
    baseline: int
    answer: str
    number: int
    against: str
    params: Any
    score: Callable[[Any, Any, Any], Any]
    vectors: Callable[[Any, Any], Any]
    attention: Callable[[Any, Any], np.ndarray] | None = None
    reader: int = 0
    by_vectors: bool = True
    """Whether tokens count by their vectors alone, and not by n-grams beside a head as well."""
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
    """(score, it and its derivative by the shift), compiled once for all texts of a length and all parameters."""

    def summed(params, ids_BT, shift_BTW):
        score_B = score(params, ids_BT, shift_BTW)
        return score_B.sum(), score_B

    def slope(params, ids_BT, shift_BTW):
        (_, score_B), derivative_BTW = jax.value_and_grad(summed, argnums=2, has_aux=True)(params, ids_BT, shift_BTW)
        return score_B, derivative_BTW

    return jax.jit(score), jax.jit(slope)


def subject_of(
    run: Run, prompt: str, *, pair: str = "", written: str = "", answer: str = "", against: str = "", step: int | None = None
) -> Subject:
    """Of a decoder: the token after `prompt`. Of an encoder-decoder that reads `prompt`: the first token that it writes, or the one after
    `written`. Of a classifier with a head: the label, or one of several labels, of the text `prompt`, or of it and `pair`.

    answer, against: that token or label and another one; empty: what the model finds most likely, and none. UserError for other runs, for
    an empty or too long text, and for answers that are none.
    """
    encodes = isinstance(run.experiment.model, TextEncoderConfig)
    if encodes and not isinstance(run.experiment.data, Classification):
        raise UserError(f"{run.path}: of encoders, those are explained that give texts labels", "Give a run of Classification.")
    model = None if encodes else decoder_of(run, reads=True)
    if pair and not encodes:
        raise UserError("--pair is for runs that classify pairs of texts", "Leave it out.")
    if written and not isinstance(model, EncoderDecoder):
        raise UserError(
            "--written is for encoder-decoders, which write a text of their own", "Leave it out; a decoder goes on with --prompt."
        )
    if not encodes and not isinstance(model, Decoder | EncoderDecoder):
        what = f"{run.path}: a {type(run.experiment.model).__name__} is not explained"
        raise UserError(what, "Give a decoder, an encoder-decoder, or an encoder with a head for classes.")
    params = load_parameters(run, step=step)[0]
    if isinstance(model, EncoderDecoder):
        return _of_translator(run, model, params, prompt, written, answer, against)
    if isinstance(model, Decoder):
        return _of_decoder(run, model, params, prompt, answer, against)
    return _of_classifier(run, params, prompt, pair, answer, against)


def asked(scores, params, ids_T, number: Callable[[str, str], int], answer: str, against: str) -> tuple[int, int | None]:
    """The numbers of an answer, by default the one with the largest logit, and of another one, None where there is none.

    scores: as `score` of a Subject, but of all answers, [B, V]. number(name, option): of a name that an option gives. UserError where both
    are the same.
    """
    chosen = number(answer, "--answer") if answer else int(np.asarray(jax.jit(scores)(params, ids_T[None], None)[0].argmax()))
    other = number(against, "--against") if against else None
    if chosen == other:
        raise UserError(f"--against {against!r} is the answer itself", "Name another, or leave it out.")
    return chosen, other


def odds(score_BV, answer: int, against: int | None):
    """Of logits: log-odds of one of several, against all others or against one."""
    if against is not None:
        return score_BV[:, answer] - score_BV[:, against]
    return score_BV[:, answer] - jax.nn.logsumexp(score_BV.at[:, answer].set(-jnp.inf), -1)


def odds_of_several(score_BV, answer: int, against: int | None):
    """Of the logits of labels of which any number may hold: log-odds of one, or how much larger they are than those of another."""
    return score_BV[:, answer] - (0.0 if against is None else score_BV[:, against])


def _encoded(tokenizer: Tokenizer, prompt: str) -> np.ndarray:
    """UserError for a text that is empty or too long to explain."""
    ids = tokenizer.encode(prompt)
    if not len(ids):
        raise UserError("--prompt is empty", "Give a text.")
    if len(ids) > LONGEST:
        raise UserError(f"--prompt has {len(ids)} tokens, of which at most {LONGEST} are explained", "Give a shorter text.")
    return ids


def _nothing(tokenizer: Tokenizer) -> int:
    """The token that stands where one is taken away."""
    specials = tokenizer.specials
    return specials.get("mask", specials.get("padding", specials["document_end"]))


def _shown(tokenizer: Tokenizer, ids_T, free_T) -> list[str]:
    return [tokenizer.decode([int(one)]) if free else "" for one, free in zip(ids_T, free_T, strict=True)]


def _quick(model):
    """The model as it compiles fastest: scanned, which takes layers by groups, so where these are of several kinds, unrolled."""
    return type(model)(dataclasses.replace(model.config, scan=not model.config.global_every, remat="none"))


def _of_decoder(run: Run, model: Decoder, params, prompt: str, answer: str, against: str) -> Subject:
    tokenizer, config = run.tokenizer(), model.config
    own = _encoded(tokenizer, prompt)
    start = list(load_chat(run.path).start_ids) or ([] if run.document_end is None else [tokenizer.document_start])
    ids_T = np.concatenate([start, own]).astype(np.int32)
    if len(ids_T) > config.context_length:
        raise UserError(f"--prompt has {len(own)} tokens; the model reads {config.context_length}", "Give a shorter text.")
    quick, plain = _quick(model), Decoder(dataclasses.replace(config, scan=False, remat="none"))  # a scan shows no attention

    def hidden_BD(params, ids_BT, shift_BTW):
        return quick.apply({"params": params}, ids_BT, shift_BTD=shift_BTW).hidden_BTD[:, -1]

    def attention(params, ids_T):
        watched: list[Any] = []
        plain.apply({"params": params}, jnp.asarray(ids_T)[None], watch=watched)
        return np.asarray(jnp.stack(watched)[:, 0])

    subject = _of_next_token(config, tokenizer, params, ids_T, np.arange(len(ids_T)) >= len(start), hidden_BD, answer, against)

    def lens():
        found = logit_lens(config, params, ids_T, subject.number)
        return [
            {
                "layer": layer,
                "answer": float(answer),
                "likeliest": [[tokenizer.decode([int(one)]), float(share)] for one, share in zip(ids, shares, strict=True)],
            }
            for layer, (ids, shares, answer) in enumerate(zip(*found, strict=True), 1)
        ]

    return dataclasses.replace(subject, attention=attention, reader=len(ids_T) - 1, lens=lens)


def _of_translator(run: Run, model: EncoderDecoder, params, prompt: str, written: str, answer: str, against: str) -> Subject:
    """The source is read as `omnia generate` reads it. Its tokens are those of the subject; what was written stays as it is."""
    tokenizer, config = run.tokenizer(), model.config
    own = _encoded(tokenizer, prompt)
    ids_T = np.concatenate([own, [] if run.document_end is None else [run.document_end]]).astype(np.int32)
    target_T = np.concatenate([[config.start_token], tokenizer.encode_inside(written)]).astype(np.int32)
    for option, ids in (("--prompt", ids_T), ("--written", target_T)):
        if len(ids) > config.context_length and config.positions in ("learned", "sinusoidal"):
            what = f"{option} has {len(ids)} tokens with its marks; the model knows {config.context_length}"
            raise UserError(what, "Give a shorter text.")
    quick = _quick(model)

    def hidden_BD(params, ids_BT, shift_BTW):
        positions_BT = jnp.broadcast_to(jnp.arange(ids_BT.shape[1]), ids_BT.shape)
        source = SourceText(ids_BT, jnp.ones_like(positions_BT), positions_BT, shift_BTW)
        targets_BT = jnp.broadcast_to(jnp.asarray(target_T), (ids_BT.shape[0], len(target_T)))
        return quick.apply({"params": params}, targets_BT, source=source).hidden_BTD[:, -1]

    return _of_next_token(config, tokenizer, params, ids_T, np.arange(len(ids_T)) < len(own), hidden_BD, answer, against)


def _of_next_token(config, tokenizer: Tokenizer, params, ids_T, free_T, hidden_BD, answer: str, against: str) -> Subject:
    """hidden_BD(params, ids_BT, shift_BTW): what the token is predicted from."""

    def scores(params, ids_BT, shift_BTW):
        head = Head(hidden_BD(params, ids_BT, shift_BTW), vocabulary_table(params))
        return logits(head, softcap=config.logit_softcap)

    def number(text: str, option: str) -> int:
        found = tokenizer.encode_inside(text)
        if not len(found):
            raise UserError(f"{option} {text!r} has no token", "Give a text.")
        return int(found[0])

    chosen, other = asked(scores, params, ids_T, number, answer, against)
    return Subject(
        ids_T=ids_T,
        texts=_shown(tokenizer, ids_T, free_T),
        free_T=free_T,
        baseline=_nothing(tokenizer),
        answer=tokenizer.decode([chosen]),
        number=chosen,
        against="" if other is None else tokenizer.decode([other]),
        params=params,
        score=lambda params, ids_BT, shift_BTW: odds(scores(params, ids_BT, shift_BTW), chosen, other),
        vectors=lambda params, ids: vectors_of(config, params["embedding"]["table"], jnp.asarray(ids)),
    )


def _of_classifier(run: Run, params, prompt: str, pair: str, answer: str, against: str) -> Subject:
    dataset: Any = dataset_of(run.experiment)
    assert isinstance(dataset, ClassificationDataset)
    objective = run.experiment.objective
    own = objective.of if isinstance(objective, Distillation) else objective
    loss: Any = bind(dataclasses.replace(run.experiment, objective=own, frozen=())).loss  # not one that goes around it
    if bool(pair) != bool(dataset.options.pair):
        what = "pairs of texts" if dataset.options.pair else "single texts"
        raise UserError(f"{run.path}: classifies {what}", f"{'Give' if dataset.options.pair else 'Leave out'} --pair.")
    tokenizer, names = run.tokenizer(), dataset.label_names
    _encoded(tokenizer, prompt)
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

    def number(name: str, option: str) -> int:
        if name not in names:
            raise UserError(f"{option} {name!r} is none of the run's labels", f"They are {', '.join(names)}.")
        return names.index(name)

    chosen, other = asked(scores, params, ids_T, number, answer, against)
    log_odds = odds_of_several if dataset.options.several else odds

    def attention(params, ids_T):
        watched: list[Any] = []
        scores(params, jnp.asarray(ids_T)[None], None, watched)
        return np.asarray(jnp.stack(watched)[:, 0])

    free_T = ~np.isin(ids_T, [tokenizer.document_start, tokenizer.specials["document_end"]])
    return Subject(
        ids_T=ids_T.astype(np.int32),
        texts=_shown(tokenizer, ids_T, free_T),
        free_T=free_T,
        baseline=_nothing(tokenizer),
        answer=names[chosen],
        number=chosen,
        against="" if other is None else names[other],
        params=params,
        score=lambda params, ids_BT, shift_BTW: log_odds(scores(params, ids_BT, shift_BTW), chosen, other),
        vectors=lambda params, ids: vectors_of(config, params["embedding"]["table"], jnp.asarray(ids)),
        attention=attention,
        by_vectors=not loss.ngrams,
    )
