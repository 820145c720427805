"""How the next token is drawn: what is asked for (Sampling), and the same of each row as arrays, so that no setting makes a new program."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from model.attention.dispatch import MASKED
from model.decoding.filters import keep_min_p, keep_top_k, keep_top_p, keep_typical, temper

LARGEST = 1e30
"""Of what divides or multiplies logits: more leaves the range of float32."""
RUN = 128
"""Tokens whose probabilities are summed before a token among them is looked for."""
FEWEST_STOPS = 4
"""Places for stop ids in a row; more double it, so that few programs are compiled."""


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How the next token is sampled. What changes logits applies in the order of the fields; the defaults sample from the model itself."""

    bias: tuple[tuple[int, float], ...] = ()
    """(id, what is added to its logit)."""
    repetition_penalty: float = 1.0
    """Divides positive logits of tokens already in the row, and multiplies negative ones (Keskar et al. 2019). 1: off."""
    frequency_penalty: float = 0.0
    """Lowers the logit of a token by this for each time that it follows the prompt. 0: off."""
    presence_penalty: float = 0.0
    """Lowers the logit of every token that follows the prompt. 0: off."""
    temperature: float = 1.0
    """Divides the logits. 0: greedy, the most likely token."""
    top_k: int = 0
    """Keep the k most likely tokens. 0: all."""
    typical_p: float = 1.0
    """Keep the tokens whose surprise is closest to the entropy, until their probability reaches p (Meister et al. 2022). 1: all."""
    top_p: float = 1.0
    """Keep the smallest set of tokens whose probability reaches p (Holtzman et al. 2020). 1: all."""
    min_p: float = 0.0
    """Keep tokens at least min_p times as likely as the most likely one (Nguyen et al. 2024). 0: all."""
    stop_ids: tuple[int, ...] = ()
    """A row ends with the first of these it samples; that token is kept."""
    among: tuple[int, int] | None = None
    """Draw only ids from the first to before the second, such as the codes of pictures, and stop_ids. None: any."""
    allowed: tuple[int, ...] = ()
    """Draw only these ids. Empty: any."""

    def __post_init__(self):
        ranges = {
            "temperature": (0 <= self.temperature <= LARGEST, f"from 0 to {LARGEST:g}"),
            "top_k": (0 <= self.top_k < 2**31, "0 or more"),
            "typical_p": (0 < self.typical_p <= 1, "in (0, 1]"),
            "top_p": (0 < self.top_p <= 1, "in (0, 1]"),
            "min_p": (0 <= self.min_p <= 1, "in [0, 1]"),
            "repetition_penalty": (0 < self.repetition_penalty <= LARGEST, f"above 0 and at most {LARGEST:g}"),
            "frequency_penalty": (abs(self.frequency_penalty) <= LARGEST, f"at most {LARGEST:g} in size"),
            "presence_penalty": (abs(self.presence_penalty) <= LARGEST, f"at most {LARGEST:g} in size"),
            "bias": (all(abs(added) <= LARGEST for _, added in self.bias), f"at most {LARGEST:g} in size"),
        }
        for name, (fine, rule) in ranges.items():
            if not fine:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be {rule}")


class RowSampling(flax.struct.PyTreeNode):
    """Sampling of each of B rows. temperature_B and the like: as Sampling's fields; top_k_B: for all the vocabulary's size; stops_BE: ids,
    -1 in places without one; bias_BV: added to logits, MASKED for ids that are not drawn, [1, V] where rows have the same."""

    repetition_penalty_B: Any
    frequency_penalty_B: Any
    presence_penalty_B: Any
    temperature_B: Any
    top_k_B: Any
    typical_p_B: Any
    top_p_B: Any
    min_p_B: Any
    stops_BE: Any
    bias_BV: Any


def by_row(samplings: Sequence[Sampling], vocabulary: int, *, stops: int = 0) -> RowSampling:
    """The settings of each row, NumPy arrays. stops: places for stop ids; 0: as many as are needed, in few sizes. ValueError for a bias of
    an id that the vocabulary has not."""

    def column(name: str, dtype: Any = np.float32):
        return np.array([getattr(one, name) for one in samplings], dtype)

    most = max((len(one.stop_ids) for one in samplings), default=0)
    places = stops or FEWEST_STOPS
    while places < most:
        places *= 2
    top_k_B = np.minimum(column("top_k", np.int64), vocabulary)
    same = len({(one.bias, one.among, one.allowed, one.stop_ids) for one in samplings}) == 1
    temperature_B = column("temperature", np.float64)
    coldest = np.finfo(np.float32).tiny  # below it a float32 is 0, which means greedy
    return RowSampling(
        **{f"{name}_B": column(name) for name in ("repetition_penalty", "frequency_penalty", "presence_penalty")},
        **{f"{name}_B": column(name) for name in ("typical_p", "top_p", "min_p")},
        temperature_B=np.where(temperature_B > 0, np.maximum(temperature_B, coldest), 0).astype(np.float32),
        top_k_B=np.where(top_k_B > 0, top_k_B, vocabulary).astype(np.int32),
        stops_BE=np.array([[*one.stop_ids, *[-1] * (places - len(one.stop_ids))] for one in samplings], np.int32),
        bias_BV=np.stack([_bias(one, vocabulary) for one in (samplings[:1] if same else samplings)]),
    )


def _bias(sampling: Sampling, vocabulary: int) -> np.ndarray:
    added_V = np.zeros(vocabulary, np.float32)
    for id_, added in sampling.bias:
        if not 0 <= id_ < vocabulary:
            raise ValueError(f"bias is of id {id_}; there are {vocabulary}")
        added_V[id_] += added
    if sampling.among is not None:
        drawn_V = np.zeros(vocabulary, bool)
        drawn_V[slice(*sampling.among)] = True
        drawn_V[[stop for stop in sampling.stop_ids if 0 <= stop < vocabulary]] = True
        added_V[~drawn_V] = MASKED
    if sampling.allowed:
        drawn_V = np.zeros(vocabulary, bool)
        drawn_V[list(sampling.allowed)] = True
        added_V[~drawn_V] = MASKED
    return added_V


def next_logits(logits_BV, sampling: RowSampling, tokens_BS, held_BS, made_BS):
    """The filtered, tempered float32 logits [B, V] that the next token is drawn from; what is filtered out is at MASKED.

    tokens_BS: ids of the rows so far. held_BS, made_BS: bool, which of them there are, and which follow the prompt: what penalties count.
    A filter that no row asks for costs nothing.
    """
    allowed_BV = sampling.bias_BV > MASKED / 2
    x_BV = jnp.where(allowed_BV, logits_BV + sampling.bias_BV, MASKED)

    def column(name: str):
        return getattr(sampling, f"{name}_B")[:, None]

    def penalised(x_BV):
        def count(there_BS):
            return jnp.zeros(x_BV.shape, jnp.float32).at[jnp.arange(len(x_BV))[:, None], tokens_BS].add(there_BS)

        penalty, made_BV = column("repetition_penalty"), count(made_BS)
        x_BV = jnp.where(count(held_BS) > 0, jnp.where(x_BV > 0, x_BV / penalty, x_BV * penalty), x_BV)
        return x_BV - column("frequency_penalty") * made_BV - column("presence_penalty") * (made_BV > 0)

    repeats = column("repetition_penalty") != 1
    counts = (column("frequency_penalty") != 0) | (column("presence_penalty") != 0)
    x_BV = _where_asked(repeats | counts, penalised, x_BV)
    x_BV = temper(x_BV, jnp.where(column("temperature") > 0, column("temperature"), 1.0))
    x_BV = jnp.where(allowed_BV, x_BV, MASKED)  # again: a penalty or a high temperature makes even that likely
    filters = {"top_k": (keep_top_k, x_BV.shape[-1]), "typical_p": (keep_typical, 1), "top_p": (keep_top_p, 1), "min_p": (keep_min_p, 0)}
    for name, (keep, off) in filters.items():
        limit_B1 = column(name)
        x_BV = _where_asked(limit_B1 != off, functools.partial(keep, limit_B1=limit_B1), x_BV)
    return x_BV


def next_tokens(keys_B, logits_BV, sampling: RowSampling, tokens_BS, held_BS, made_BS):
    """int32 [B], the next token of each row. keys_B: as of `draw`; the others as of `next_logits`."""
    return draw(keys_B, next_logits(logits_BV, sampling, tokens_BS, held_BS, made_BS), sampling.temperature_B).astype(jnp.int32)


def _where_asked(asked_B1, change, x_BV):
    """Rows that ask for a change, changed."""
    return jax.lax.cond(asked_B1.any(), lambda x_BV: jnp.where(asked_B1, change(x_BV), x_BV), lambda x_BV: x_BV, x_BV)


def draw(keys_B, x_BV, temperature_B):
    """The next token of each row, int [B]: the likeliest at temperature 0. keys_B: a function of no arguments that gives a key a row."""
    random_B, nobody_B = temperature_B > 0, jnp.zeros(len(x_BV), jnp.int32)
    greedy_B = jax.lax.cond((~random_B).any(), lambda: likeliest_token(x_BV), lambda: nobody_B)
    return jnp.where(random_B, jax.lax.cond(random_B.any(), lambda: sample_token(keys_B(), x_BV), lambda: nobody_B), greedy_B)


def likeliest_token(x_BV):
    """The first of the largest in each row, int32 [B]: argmax, in two passes that a CPU does several times faster than its one."""
    ids_V = jnp.arange(x_BV.shape[-1], dtype=jnp.int32)
    return jnp.where(x_BV == x_BV.max(-1, keepdims=True), ids_V, x_BV.shape[-1] - 1).min(-1)


def sample_token(keys_B, logits_BV):
    """One token a row in proportion to exp(logits): int32 [B]. keys_B: a random key a row.

    The cumulative distribution is inverted, which takes one random number a row; Gumbel noise, the other way, takes one a token of the
    vocabulary. Sums of runs of tokens find the run, and the sums within it the token, so that most of the vocabulary is read once. What is
    at MASKED is never sampled, whatever is lost in rounding.
    """
    batch, vocabulary = logits_BV.shape
    runs = -(-vocabulary // RUN)
    p_BV = jnp.exp(logits_BV - logits_BV.max(-1, keepdims=True))
    p_BNR = jnp.pad(p_BV, ((0, 0), (0, runs * RUN - vocabulary))).reshape(batch, runs, RUN)
    sum_BN = jnp.cumsum(p_BNR.sum(-1), axis=-1)
    point_B = jnp.minimum(jax.vmap(jax.random.uniform)(keys_B) * sum_BN[:, -1], jnp.nextafter(sum_BN[:, -1], 0.0))
    run_B = _first(sum_BN > point_B[:, None])
    p_BR = jnp.take_along_axis(p_BNR, run_B[:, None, None], axis=1)[:, 0]
    before_B = jnp.where(run_B > 0, jnp.take_along_axis(sum_BN, jnp.maximum(run_B - 1, 0)[:, None], axis=1)[:, 0], 0.0)
    place_B = _first(((before_B[:, None] + jnp.cumsum(p_BR, axis=-1)) > point_B[:, None]) & (p_BR > 0))
    # The sums of a run and of its tokens are rounded apart: a point that is beyond all of these belongs to the last that can be.
    last_B = RUN - 1 - _first(p_BR[:, ::-1] > 0)
    return run_B * RUN + jnp.minimum(place_B, last_B)


def _first(true_BN):
    """The first that is true in each row, int32 [B]; the last place where none is."""
    places_N = jnp.arange(true_BN.shape[-1], dtype=jnp.int32)
    return jnp.where(true_BN, places_N, true_BN.shape[-1] - 1).min(-1)
