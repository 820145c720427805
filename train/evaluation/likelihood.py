"""How likely a model finds continuations of texts: many at once, packed into rows, and what several continuations share is read once."""

import collections
import dataclasses
import os.path
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from data.errors import UserError
from data.text.packing import make_plan
from model.encoder_decoder import EncoderDecoder, SourceText
from model.heads import Head, score_tokens, vocabulary_table
from model.transformer import Decoder, knows_branches
from train.devices.mesh import put_batch, row_shards
from train.step.update import compiler_options, on_mesh

ROW = 256
"""Places of a row, unless a text is longer: several texts then fill it well, and attention costs little beside the rest."""
TOKENS = {"cpu": 1024}
"""Places of a batch, by platform: on a CPU few enough to stay in its caches."""
MANY_TOKENS = 16_384
"""Places of a batch elsewhere: enough to keep an accelerator busy."""
FEW = 8
"""Rows of a batch up to which any number of rows is worth a program of its own; above, powers of two are."""
WAITING = 2
"""Batches that the device has before it, while the next is packed."""


class Request(NamedTuple):
    """Ids of a text and of what may follow it, at least one each. An encoder-decoder reads the context and writes the continuation."""

    context: Sequence[int]
    continuation: Sequence[int]


class Likelihood(NamedTuple):
    """log_prob: nats, the sum over a continuation's tokens. greedy: whether each of them is the most likely one in its place."""

    log_prob: float
    greedy: bool


class Rows(NamedTuple):
    """Packed texts, int32 [B, T]: tokens, segments (0 for padding), positions and branches (see Mask), and those of the sources that an
    encoder reads, [B, T] too; None where there are none. What is predicted, [B, P]: places in the row, the targets there, and owners: the
    number of the request, -1 for none."""

    tokens: np.ndarray
    segments: np.ndarray
    positions: np.ndarray
    branches: np.ndarray | None
    source: SourceText | None
    places: np.ndarray
    targets: np.ndarray
    owners: np.ndarray


class _Branch(NamedTuple):
    """Tokens that are read behind a trunk, and what is predicted: (number of the request, continuation). All of them end one behind the
    tokens: either there is one, or each has one token."""

    tokens: list[int]
    continuations: list[tuple[int, Sequence[int]]]


@dataclasses.dataclass
class _Text:
    """One segment of a row: a trunk, and the branches behind it. Predictions are (place in the segment, target, number of the request)."""

    tokens: list[int]
    positions: list[int]
    branches: list[int]
    predictions: list[tuple[int, int, int]]
    source: list[int]
    last_branch: int = 0

    def add(self, trunk: int, branch: _Branch) -> None:
        """Put a branch behind the first `trunk` tokens, whose last predicts its first; what it ends with is predicted only."""
        first = len(self.tokens)
        self.last_branch += 1
        self.tokens += branch.tokens
        self.positions += range(trunk, trunk + len(branch.tokens))
        self.branches += [self.last_branch] * len(branch.tokens)
        for number, continuation in branch.continuations:
            begin = len(branch.tokens) - len(continuation) + 1  # of those of its tokens that are read
            places = [first + begin - 1 if begin else trunk - 1, *range(first + begin, first + len(branch.tokens))]
            self.predictions += zip(places, continuation, [number] * len(places), strict=True)

    @property
    def length(self) -> int:
        return max(len(self.tokens), len(self.source))


class Likelihoods:
    """The likelihoods of continuations, of a decoder or an encoder-decoder.

    What contexts share, such as solved examples before a question, is read once with all that follows as branches behind it
    (`Mask.branches_BT`), where the model knows branches and it saves tokens; else each context is read for itself. They come to the same
    within 1e-5 of `likelihood`, which takes one at a time.
    """

    def __init__(self, model: Any, params, mesh, *, context_length: int = 0, tokens: int = 0):
        """context_length: tokens that the model is given at most; 0: its context. tokens: places of a batch; 0: what suits the platform."""
        config = model.config
        if getattr(config, "expert_capacity", 0):  # what stands together by chance may not push out one another's tokens
            config = dataclasses.replace(config, expert_capacity=0.0)
        alike = not config.global_every or (config.num_layers % config.global_every == 0 and not config.layer_groups)
        if "layers" in params and alike:  # one layer, or group of them, is compiled for all
            config = dataclasses.replace(config, scan=True, remat="none")
        if config.positions == "learned" and context_length > config.context_length:
            raise UserError(
                f"a context of {context_length} tokens; the model has learned {config.context_length} positions", "Ask for fewer tokens."
            )
        self._model, self._params, self._mesh = model.clone(config=config), params, mesh
        self.context_length = context_length or config.context_length
        self._reads = isinstance(model, EncoderDecoder)
        self._shares = isinstance(model, Decoder) and knows_branches(config)
        platform = mesh.devices.flat[0].platform
        self._tokens = tokens or TOKENS.get(platform, MANY_TOKENS)
        self._score = on_mesh(jax.jit(self._scored, compiler_options=compiler_options(platform)), mesh)

    def __call__(self, requests: Sequence[Request]) -> list[Likelihood]:
        """The likelihood of each request, in the order asked. A context too long for the model is cut from the left; UserError for a
        continuation that is, and for an empty one."""
        found, greedy = np.zeros(len(requests), np.float64), np.ones(len(requests), bool)
        waiting: collections.deque = collections.deque()

        def collect():
            owners, scores = waiting.popleft()
            nll_BP, hit_BP = multihost_utils.process_allgather(scores, tiled=True)
            there = owners >= 0
            np.subtract.at(found, owners[there], nll_BP[there].astype(np.float64))
            np.logical_and.at(greedy, owners[there], hit_BP[there] > 0)

        for rows in self._batches(self._texts(requests)):

            def some(first: int, count: int, rows=rows) -> Rows:
                return jax.tree.map(lambda x: x[first : first + count], rows)

            placed = put_batch(self._mesh, some, len(rows.tokens))
            waiting.append((rows.owners, self._score(self._params, placed)))
            if len(waiting) > WAITING:
                collect()
        while waiting:
            collect()
        return [Likelihood(float(log_prob), bool(hit)) for log_prob, hit in zip(found, greedy, strict=True)]

    def rolling(self, texts: Sequence[Sequence[int]], start: int) -> list[float]:
        """log p of whole texts, nats, whose first token follows `start`; 0 for one without tokens.

        A text is predicted in disjoint windows of the context's length, each token once. The last window has room, and is given what came
        before it; the others know one token before them.
        """
        length, requests, owners = self.context_length, [], []
        for owner, text in enumerate(texts):
            for first in range(0, len(text), length):
                end = min(first + length, len(text))
                requests.append(Request(text[end - length - 1 : first] if first else [start], text[first:end]))
                owners.append(owner)
        found = np.zeros(len(texts))
        for owner, one in zip(owners, self(requests), strict=True):
            found[owner] += one.log_prob
        return found.tolist()

    def _texts(self, requests: Sequence[Request]) -> Iterator[_Text]:
        """The requests as segments of rows."""
        groups: dict[tuple[int, ...], list[tuple[int, Sequence[int]]]] = {}
        for number, request in enumerate(requests):
            context, continuation = cut(request, self.context_length, apart=self._reads)
            groups.setdefault(tuple(context), []).append((number, continuation))
        if not self._shares:
            for context, members in groups.items():
                trunk, source = ([self._model.config.start_token], context) if self._reads else (list(context), ())
                for member in members:
                    yield from self._behind(trunk, [_Branch(list(member[1][:-1]), [member])], source)
            return
        for shared, contexts in _together(groups):
            yield from self._behind(
                list(contexts[0][:shared]), [branch for context in contexts for branch in _branches(context[shared:], groups[context])]
            )

    def _behind(self, trunk: list[int], branches: list[_Branch], source: Sequence[int] = ()) -> Iterator[_Text]:
        """Texts with this trunk, as many as are needed for all branches."""
        widest, text = max(ROW, _width(self.context_length)), None
        for branch in branches:
            if text is None or len(text.tokens) + len(branch.tokens) > widest:
                if text is not None:
                    yield text
                text = _Text(list(trunk), list(range(len(trunk))), [0] * len(trunk), [], list(source))
            text.add(len(trunk), branch)
        if text is not None:
            yield text

    def _batches(self, texts: Iterator[_Text]) -> Iterator[Rows]:
        """Rows of few shapes: those as wide as another, with about as many predictions, are neighbours."""
        by_width = collections.defaultdict(list)
        for text in texts:
            by_width[_width(text.length)].append(text)
        shards = row_shards(self._mesh)
        for width in sorted(by_width, reverse=True):
            rows = _packed(by_width[width], width)
            size = -(-max(1, self._tokens // width) // shards) * shards
            for first in range(0, len(rows), size):
                chosen = rows[first : first + size]
                few = len(chosen) if size <= FEW else min(size, _power(len(chosen)))  # the last rows are not computed as if they were many
                count = -(-few // shards) * shards
                yield self._filled(chosen, count, width)

    def _filled(self, rows: list[list[_Text]], count: int, width: int) -> Rows:
        most = max(sum(len(text.predictions) for text in row) for row in rows)
        shape, predicted = (count, width), (count, max(8, _power(most)))
        tokens, segments, positions, branches = (np.zeros(shape, np.int32) for _ in range(4))
        source = SourceText(*(np.zeros(shape, np.int32) for _ in range(3)))
        places, targets, owners = np.zeros(predicted, np.int32), np.zeros(predicted, np.int32), np.full(predicted, -1, np.int32)
        for row, content in enumerate(rows):
            start = held = 0
            for segment, text in enumerate(content, 1):
                span, read = slice(start, start + len(text.tokens)), slice(start, start + len(text.source))
                tokens[row, span], segments[row, span] = text.tokens, segment
                positions[row, span], branches[row, span] = text.positions, text.branches
                source.tokens_BS[row, read], source.segments_BS[row, read] = text.source, segment
                source.positions_BS[row, read] = np.arange(len(text.source))
                predictions = np.array(text.predictions, np.int32)
                these = slice(held, held + len(predictions))
                places[row, these], targets[row, these], owners[row, these] = predictions.T + [[start], [0], [0]]
                start, held = start + text.length, held + len(predictions)
        shared = branches if self._shares else None
        return Rows(tokens, segments, positions, shared, source if self._reads else None, places, targets, owners)

    def _scored(self, params, rows: Rows):
        """-log p of the targets, nats, and whether each is the most likely token: float32 [B, P]."""
        where: dict[str, Any] = {"segments_BT": rows.segments, "positions_BT": rows.positions}
        where |= {} if rows.source is None else {"source": rows.source}
        where |= {} if rows.branches is None else {"branches_BT": rows.branches}
        hidden_BTD = self._model.apply({"params": params}, rows.tokens, **where).hidden_BTD
        hidden_BPD = jnp.take_along_axis(hidden_BTD, rows.places[..., None], axis=1)
        head, softcap = Head(hidden_BPD, vocabulary_table(params)), self._model.config.logit_softcap
        scores = score_tokens(head, rows.targets, want=("nll", "hit"), softcap=softcap, shards=row_shards(self._mesh))
        return scores.nll, scores.hit


def likelihood(model: Any, params, request: Request) -> Likelihood:
    """One request in a row of its own, what `Likelihoods` must come to. The model's capacity of experts, if any, is as it is."""
    reads = isinstance(model, EncoderDecoder)
    context, continuation = cut(request, model.config.context_length, apart=reads)
    trunk = [model.config.start_token] if reads else list(context)
    more = {}
    if reads:
        source = jnp.asarray([context], jnp.int32)
        more["source"] = SourceText(source, jnp.ones_like(source), jnp.arange(source.shape[1])[None])
    tokens_BT = jnp.asarray([[*trunk, *continuation[:-1]]], jnp.int32)
    hidden_BPD = model.apply({"params": params}, tokens_BT, **more).hidden_BTD[:, len(trunk) - 1 :]
    head, targets_BP = Head(hidden_BPD, vocabulary_table(params)), jnp.asarray([continuation], jnp.int32)
    scores = score_tokens(head, targets_BP, want=("nll", "hit"), softcap=model.config.logit_softcap)
    assert scores.hit is not None
    return Likelihood(float(scores.log_probs.sum()), bool(scores.hit.all()))


def cut(request: Request, length: int, *, apart: bool) -> tuple[Sequence[int], Sequence[int]]:
    """The request as a model with a context of `length` tokens can read it: the last token is predicted and not read. apart: the context is
    a text of its own, and has the length for itself."""
    context, continuation = request
    if not context or not continuation:
        raise UserError("a request without a context or without a continuation", "Give at least one token of each.")
    if len(continuation) > length:
        raise UserError(f"a continuation of {len(continuation)} tokens; the model reads {length}", "Give a shorter one.")
    return context[-(length if apart else length + 1 - len(continuation)) :], continuation


def _branches(rest: Sequence[int], members: list[tuple[int, Sequence[int]]]) -> list[_Branch]:
    """Of a context's continuations: one for all of a single token, else one for each."""
    if all(len(continuation) == 1 for _, continuation in members):
        return [_Branch(list(rest), members)]
    return [_Branch([*rest, *member[1][:-1]], [member]) for member in members]


def _together(groups: dict[tuple[int, ...], list[tuple[int, Sequence[int]]]]) -> Iterator[tuple[int, list[tuple[int, ...]]]]:
    """(tokens that some contexts share, those contexts): neighbours in the order of their ids, as long as another one costs fewer tokens
    beside the others than by itself.

    M branches behind p shared tokens cost A - (M - 1) p, where A is what they cost with all their tokens.
    """
    held, shared, whole, branches = list[tuple[int, ...]](), 0, 0, 0
    for context in sorted(groups):
        found = _branches(context, groups[context])
        own, count = sum(len(branch.tokens) for branch in found), len(found)
        alone = own - (count - 1) * len(context)
        same = min(shared, len(os.path.commonprefix([held[-1], context]))) if held else 0
        if held and same and whole + own - (branches + count - 1) * same < whole - (branches - 1) * shared + alone:
            held, shared, whole, branches = [*held, context], same, whole + own, branches + count
            continue
        if held:
            yield shared, held
        held, shared, whole, branches = [context], len(context), own, count
    if held:
        yield shared, held


def _packed(texts: list[_Text], width: int) -> list[list[_Text]]:
    """The texts of each row, rows with the most predictions first."""
    plan = make_plan(np.array([text.length for text in texts]), width)
    slots = plan.slots(np.arange(plan.rows))
    rows: list[list[_Text]] = [[] for _ in range(plan.rows)]
    for row, number in zip(slots.row.tolist(), slots.document.tolist(), strict=True):
        rows[row].append(texts[number])
    return sorted(rows, key=lambda row: -sum(len(text.predictions) for text in row))


def _power(count: int) -> int:
    """The next power of two."""
    return 1 << (count - 1).bit_length()


def _width(length: int) -> int:
    """Places of the row that a text of so many tokens stands in: of few widths, and at most an eighth of it is left over."""
    step = max(ROW // 2, _power(length) // 16)
    return max(ROW, -(-length // step) * step)
