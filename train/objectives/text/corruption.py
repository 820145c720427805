"""What hides, drops and moves parts of texts. Pure functions of one row and its key; objectives map them over rows.

What becomes of a row depends on the batch's key and the row's number alone: not on micro-batches, devices, or the other rows.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

_EVALUATION = 0x6556616C
_LONGEST_SPAN = 10


def row_keys(key, rows_B):
    """Two keys of each row: of what is corrupted, and of dropout. Without a key (evaluation) the first depends on the row's number alone,
    and there is no second: None."""
    root = jax.random.key(_EVALUATION) if key is None else key
    keys_B2 = jax.vmap(lambda row: jax.random.split(jax.random.fold_in(root, row)))(rows_B)
    return keys_B2[:, 0], None if key is None else keys_B2[:, 1]


def present(batch):
    """bool [B, T]: where the tokens of rows stand that count. Rows past the end of an evaluation have no weight at all."""
    return (batch.segments != 0) & (batch.weights > 0).any(1, keepdims=True)


def begins(segments_T):
    """bool [T]: the first place of each segment."""
    return (segments_T != 0) & (segments_T != jnp.pad(segments_T, (1, 0))[:-1])


def separators(segments_T, types_T):
    """bool [T]: the last place of each text of a pair, where its separator stands."""
    numbers_T = 2 * segments_T + types_T
    return (segments_T != 0) & (numbers_T != jnp.pad(numbers_T[1:], (0, 1)))


# ------------------------------------------------------------------------------------------------------------- which tokens


def budget(rate: float, length: int) -> int:
    """Tokens of a row of `length` that are chosen at a rate, at most."""
    return max(1, math.floor(rate * length + 0.5))


def choose(key, units_T, candidates_T, rate: float):
    """bool [T]: whole units, drawn in a random order as long as they fit into rate * candidates tokens (rounded, at least one).

    units_T: int32 below T, the unit that each token belongs to: its own place, its word, its span. candidates_T: bool.
    """
    length = len(units_T)
    sizes_U = jnp.zeros(length, jnp.int32).at[units_T].add(candidates_T.astype(jnp.int32))
    allowed = jnp.where(sizes_U.sum() > 0, jnp.maximum(1, jnp.floor(rate * sizes_U.sum() + 0.5)), 0)
    fits_U = (sizes_U > 0) & (sizes_U <= allowed)
    order_U = jnp.argsort(jnp.where(fits_U, jax.random.uniform(key, (length,)), 2.0))
    chosen_U = jnp.zeros(length, bool).at[order_U].set(fits_U[order_U] & (jnp.cumsum(sizes_U[order_U]) <= allowed))
    return chosen_U[units_T] & candidates_T


def geometric_lengths(p: float = 0.2, longest: int = _LONGEST_SPAN) -> np.ndarray:
    """Probabilities of the lengths 1 to `longest` of a span (SpanBERT, Joshi et al. 2020, sec. 3.1): geometric, none longer."""
    weights = p * (1 - p) ** np.arange(longest)
    return weights / weights.sum()


def poisson_lengths(mean: float) -> np.ndarray:
    """Probabilities of the lengths 1, 2, ... of a span that is not empty, its length being Poisson-distributed."""
    lengths = np.arange(1, int(mean + 10 * math.sqrt(mean) + 10))
    weights = np.exp(lengths * math.log(mean) - np.array([math.lgamma(n + 1) for n in lengths]))
    return weights / weights.sum()


def random_spans(key, units_T, segments_T, probabilities):
    """int32 [T]: the rows' units cut into spans of random lengths, none over two segments; the number of each token's span.

    units_T: ascending along the row, such as its places or its words. probabilities: of the lengths 1, 2, ..., in units.
    """
    drawn_T = jax.random.uniform(key, units_T.shape)
    lengths_T = 1 + jnp.searchsorted(jnp.asarray(np.cumsum(probabilities)[:-1], jnp.float32), drawn_T, side="right")
    spans_T = jnp.searchsorted(jnp.cumsum(lengths_T), units_T, side="right")
    return joined(spans_T, segments_T)


def joined(*numbers_T):
    """int32 [T]: 0, 1, ... along the row, one more wherever any of the numbers changes."""
    changes_T = sum((jnp.diff(number_T, prepend=number_T[:1]) != 0 for number_T in numbers_T), jnp.zeros(numbers_T[0].shape, bool))
    return jnp.cumsum(changes_T.astype(jnp.int32))


# -------------------------------------------------------------------------------------------------------------- hidden tokens


class Hiding(NamedTuple):
    """How tokens are chosen and hidden: of masked language modelling."""

    rate: float
    mask: int
    ordinary: int
    spans: bool = False
    masked: float = 0.8
    random: float = 0.1


def hidden_tokens(key, tokens_T, segments_T, candidates_T, words_T, how: Hiding):
    """The row with some tokens hidden, and bool [T]: which (Devlin et al. 2019, sec. 3.1).

    Of the chosen a share `masked` becomes the mask, a share `random` a random token; the others stay. A span has one fate. words_T: int32
    [T], the words that are chosen whole, or None. Never chosen: what is no candidate, and the first token of a segment.
    """
    chosen_key, span_key, fate_key, random_key = jax.random.split(key, 4)
    candidates_T = candidates_T & ~begins(segments_T)
    places_T = jnp.arange(len(tokens_T))
    units_T = places_T if words_T is None else joined(words_T, segments_T)
    if how.spans:
        units_T = random_spans(span_key, units_T, segments_T, geometric_lengths())
    chosen_T = choose(chosen_key, units_T, candidates_T, how.rate)
    fate_T = jax.random.uniform(fate_key, tokens_T.shape)[units_T if how.spans else places_T]
    random_T = jax.random.randint(random_key, tokens_T.shape, 0, max(how.ordinary, 1))
    instead_T = jnp.where(fate_T < how.masked, how.mask, jnp.where(fate_T < how.masked + how.random, random_T, tokens_T))
    return jnp.where(chosen_T, instead_T, tokens_T), chosen_T


# ---------------------------------------------------------------------------------------------------------------- compaction


def places(kept_X, length: int):
    """Where the first `length` kept places are, int32 [length], and bool [length]: whether there are so many."""
    ends_X = jnp.cumsum(kept_X.astype(jnp.int32))
    wanted_L = jnp.arange(1, length + 1)
    return jnp.minimum(jnp.searchsorted(ends_X, wanted_L), len(kept_X) - 1), wanted_L <= ends_X[-1]


class Line(NamedTuple):
    """A row of another length, and how many tokens found no room in it."""

    tokens: jax.Array
    segments: jax.Array
    positions: jax.Array
    lost: jax.Array


def compact(kept_X, tokens_X, segments_X, length: int) -> Line:
    """What is kept, moved together to a row of `length`: padding after it, positions from 0 in each segment."""
    index_L, there_L = places(kept_X, length)
    tokens_L, segments_L = (jnp.where(there_L, values_X[index_L], 0) for values_X in (tokens_X, segments_X))
    return Line(tokens_L, segments_L, positions_within(segments_L), kept_X.sum() - there_L.sum())


def positions_within(segments_L):
    """int32 [L]: 0, 1, ... in each segment, 0 on padding."""
    place_L = jnp.arange(len(segments_L))
    first_L = jax.lax.cummax(jnp.where(begins(segments_L), place_L, 0))
    return jnp.where(segments_L != 0, place_L - first_L, 0)


def interleave(*columns_T):
    """[T] each to [n * T]: place by place, in the order given."""
    return jnp.stack(columns_T, 1).reshape(-1)


# --------------------------------------------------------------------------------------------------------- span denoising (T5)


def noise_counts(length: int, rate: float, mean_span: float) -> tuple[int, int]:
    """Noise tokens and noise spans of every row (t5's random_spans_noise_mask): at least one of each, and one token that is none."""
    tokens = min(max(round(length * rate), 1), length - 1)
    return tokens, min(max(round(tokens / mean_span), 1), length - tokens)


def span_noise(key, length: int, rate: float, mean_span: float):
    """bool [length]: spans of noise between spans that are none, both cut at random from their numbers of tokens (Raffel et al. 2020,
    sec. 3.1.4). The first span is none, the last one is noise."""
    noise, spans = noise_counts(length, rate, mean_span)
    kept_S, noise_S = (random_parts(one, items, spans) for one, items in zip(jax.random.split(key), (length - noise, noise), strict=True))
    number_T = jnp.searchsorted(jnp.cumsum(interleave(kept_S, noise_S)), jnp.arange(length), side="right")
    return number_T % 2 == 1


def random_parts(key, items: int, parts: int):
    """int32 [parts], each at least 1, together `items`; all such are equally likely."""
    cuts_I = jax.random.permutation(key, jnp.arange(items - 1) < parts - 1)
    number_I = jnp.pad(jnp.cumsum(cuts_I.astype(jnp.int32)), (1, 0))
    return jnp.zeros(parts, jnp.int32).at[number_I].add(1)


def denoised_lengths(length: int, rate: float, mean_span: float, segments: int) -> tuple[int, int]:
    """Lengths of the source and of the target that a row becomes, with room for so many segments."""
    noise, spans = noise_counts(length, rate, mean_span)
    return length - noise + spans + segments, noise + spans + 2 * segments


def denoising(noise_T, tokens_T, segments_T, sentinel, end: int, lengths: tuple[int, int]) -> tuple[Line, Line]:
    """Source and target of a row (Raffel et al. 2020, fig. 2): in the source a sentinel stands for each noise span; the target has each
    sentinel and what it stands for, then the end. Spans are cut, and sentinels counted, within each segment; without any, no target.

    sentinel(number) is the id of a sentinel. lengths: of source and target.
    """
    noise_T = noise_T & (segments_T != 0)
    first_T = begins(segments_T)
    before_T = jnp.pad(noise_T, (1, 0))[:-1] & ~first_T
    opens_T = noise_T & ~before_T
    count_T = jnp.cumsum(opens_T.astype(jnp.int32))
    number_T = count_T - 1 - jax.lax.cummax(jnp.where(first_T, count_T - opens_T, 0))
    sentinel_T = sentinel(number_T)
    source = compact(~noise_T & (segments_T != 0) | opens_T, jnp.where(opens_T, sentinel_T, tokens_T), segments_T, lengths[0])
    last_T = (segments_T != 0) & (segments_T != jnp.pad(segments_T, (0, 1))[1:])
    target = compact(
        interleave(opens_T, noise_T, last_T & (number_T >= 0)),
        interleave(sentinel_T, tokens_T, jnp.full_like(tokens_T, end)),
        interleave(segments_T, segments_T, segments_T),
        lengths[1],
    )
    return source, target


def shifted(line: Line, start: int):
    """int32 [L]: the input of a decoder that writes a line: `start`, then each token but the last, in each segment."""
    return jnp.where(begins(line.segments), start, jnp.pad(line.tokens, (1, 0))[:-1])


# -------------------------------------------------------------------------------------------------------- auto-encoding (BART)


def shuffle(key, tokens_T, segments_T, units_T):
    """The row with its units in a random order within each segment. units_T: int32 below T, ascending along the row."""
    draw_T = jax.random.uniform(key, tokens_T.shape)[units_T]
    place_T = jnp.where(segments_T != 0, segments_T, jnp.iinfo(jnp.int32).max)  # padding stays at the end
    return tokens_T[jnp.lexsort((units_T, jnp.where(segments_T != 0, draw_T, 0.0), place_T))]


def sentences(tokens_T, segments_T, ends):
    """int32 [T]: the number of each token's sentence, which ends with one of the ids `ends`."""
    ended_T = jnp.pad(jnp.isin(tokens_T, jnp.asarray(ends, jnp.int32)), (1, 0))[:-1]
    return joined(jnp.cumsum(ended_T.astype(jnp.int32)), segments_T)


def windows(segments_T, size: int):
    """int32 [T]: the number of each token's window of `size` tokens of its segment."""
    return joined(positions_within(segments_T) // size, segments_T)


def infilled(key, tokens_T, segments_T, rate: float, mean_span: float, mask: int):
    """Text infilling (Lewis et al. 2020, sec. 2.2): spans of Poisson lengths, together a share `rate` of the tokens, become one mask each;
    those of length 0 insert one. Returns (kept, tokens, segments), [2 T] each, to be made compact."""
    span_key, choice_key, insert_key = jax.random.split(key, 3)
    candidates_T = segments_T != 0
    spans_T = random_spans(span_key, jnp.arange(len(tokens_T)), segments_T, poisson_lengths(mean_span))
    chosen_T = choose(choice_key, spans_T, candidates_T, rate)
    opens_T = chosen_T & (jnp.diff(spans_T, prepend=-1) != 0)
    left_T = ~chosen_T & candidates_T
    # Of all spans, rate / mean for each token, a share exp(-mean) is empty: they go between tokens that are left.
    empty = rate / mean_span * math.exp(-mean_span) / (1 - rate)
    kept = interleave(left_T & (jax.random.uniform(insert_key, tokens_T.shape) < empty), left_T | opens_T)
    tokens = interleave(jnp.full_like(tokens_T, mask), jnp.where(chosen_T, mask, tokens_T))
    return kept, tokens, interleave(segments_T, segments_T)
