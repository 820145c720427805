"""Two towers: a vector of an item, made of its text, beside a vector of a user, made of the items that the user had."""

import dataclasses
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp

from data.errors import UserError
from model.heads import Head, logits, score_tokens
from model.layers import Dense
from train.experiment import Experiment
from train.kinds import Bound, Objective, check_range, home_of
from train.objectives.tasks.recommendation import ITEMS, NEVER
from train.objectives.terms import Term
from train.objectives.text.checks import tokens_of
from train.objectives.text.corruption import row_keys

STD = 0.05
"""Standard deviation of initial weights."""
SCALE = 20.0
"""Of a cosine, at the start."""
_SIZES = ("items", "text_width", "feature_width")


@dataclasses.dataclass(frozen=True)
class TwoTowers(Objective):
    """Softmax over items of the cosine of two towers (Yi et al. 2019). It knows an item by its text alone, so also one that nobody had."""

    home: ClassVar[str] = ":bind"
    reads: ClassVar[tuple[str, ...]] = ("interactions",)
    only_evaluated: ClassVar[tuple[str, ...]] = ("diversity",)
    uses_model: ClassVar[bool] = False
    of_texts: ClassVar[bool] = False
    reads_words: ClassVar[bool] = True
    """Whether texts are read as words where there is no encoder."""

    hidden: int = 256
    """Width of the hidden layer of each tower."""
    dropout: float = 0.2
    """Share of a text's vector and of a hidden layer that is dropped in training. 0 to below 1."""
    in_batch: bool = False
    """Wrong items are those that come next elsewhere in the batch, corrected for how often they do; else all items are."""
    popularity: bool = True
    """Add to an item's score its log frequency in training, times a learned factor."""
    diversity: int = 0
    """Percent that similarity counts in lists made by maximal marginal relevance, beside the plain ones, 0 to 100. 0: none are made."""
    items: int = 0
    """Items. 0: those of the data."""
    text_width: int = 0
    """Width of the vectors of texts. 0: of the data."""
    feature_width: int = 0
    """Width of the other features. 0: of the data."""

    def __post_init__(self):
        check_range("objective.", self, 1, "hidden")
        check_range("objective.", self, 0, "dropout", high=1)
        check_range("objective.", self, 0, "diversity", high=101)
        check_range("objective.", self, 0, *_SIZES)

    @property
    def unit(self) -> Literal["token", "example", "batch"]:
        return "batch" if self.in_batch else "token"

    def completed(self, sources: list) -> "TwoTowers":
        widths = sources[0].dataset.widths()
        found = dataclasses.replace(self, **{name: widths[name] for name in _SIZES})
        if self.items and found != self:
            raise UserError("objective: its sizes are not those of the data", f"Leave {', '.join(_SIZES)} out.")
        if not found.text_width + found.feature_width:
            raise UserError("objective TwoTowers knows items by their texts, and there are none", "Give --data.items, or --data.features.")
        return found


@dataclasses.dataclass(frozen=True)
class TwoTowersLoss:
    """batch: ItemBatch. Term `loss`: nats per event, weighted by its kind. Metric: tokens, the events.

    Parameters: item and user, each {up [E, F], down [F, E]}; attention {query [E], recency []}; scale [], the logarithm of what cosines are
    multiplied by; popularity []; item_facts [I, E + 1], which is not trained: see NextItemLoss.

    An item's vector is x + down(relu(up(x))), x being its text's. A user's is made in the same way of the sum of the vectors of the items
    that came before, with weights softmax(query · vector - recency · log(1 + items since)). All of that but x begins at zero, so at the
    start the score is the nearness of an item's text to the mean of those of the history.
    """

    options: TwoTowers
    facts: Any
    shards: int = 1

    def start(self, key):
        """Fresh parameters, boxed with logical axis names."""
        o = self.options
        width = o.text_width + o.feature_width
        if not o.items or not width:
            raise UserError(
                "objective.items and objective.text_width are not known without data",
                "Give --objective.items N and --objective.text-width N.",
            )

        def tower(key):
            up, down = jnp.zeros((1, width)), jnp.zeros((1, o.hidden))
            return {"up": _dense(o.hidden, STD).init(key, up)["params"], "down": _dense(width, 0.0).init(key, down)["params"]}

        item_key, user_key = jax.random.split(key)
        own: dict[str, Any] = {
            "item": tower(item_key),
            "user": tower(user_key),
            "attention": {"query": jnp.zeros(width), "recency": jnp.zeros(())},
            "scale": jnp.log(SCALE),
        }
        if o.popularity:
            own["popularity"] = jnp.ones(())
        return own | {"item_facts": jax.pure_callback(self.facts, jax.ShapeDtypeStruct((o.items, width + 1), jnp.float32))}

    def item_vectors(self, params, facts_IE, key=None):
        """Unit vectors float32 [..., D] of texts [..., E]. key: of dropout."""
        keys = (None, None) if key is None else jax.random.split(key)
        rate = self.options.dropout
        return self._tower(params["item"], _dropped(facts_IE, rate, keys[0]), lambda x: _dropped(x, rate, keys[1]))

    def _tower(self, tower, x, dropped):
        """Unit vectors: x + down(relu(up(x)))."""
        hidden = dropped(jax.nn.relu(_dense(self.options.hidden).apply({"params": tower["up"]}, x)))
        return _unit(x + _dense(x.shape[-1]).apply({"params": tower["down"]}, hidden))

    def user_vectors(self, params, had_BTD, segments_BT, keys_B=None):
        """Unit vectors float32 [B, T, D] of users after each of their items. had_BTD: the vectors of those."""
        o, length = self.options, had_BTD.shape[1]
        since_TT = jnp.arange(length)[:, None] - jnp.arange(length)
        liking_BT = had_BTD @ params["attention"]["query"]
        score_BTT = liking_BT[:, None] - params["attention"]["recency"] * jnp.log1p(jnp.maximum(since_TT, 0))
        there_BTT = (since_TT >= 0) & (segments_BT[:, None] > 0)
        sum_BTD = jax.nn.softmax(jnp.where(there_BTT, score_BTT, NEVER), axis=-1) @ had_BTD
        drops = keys_B is not None and o.dropout > 0
        return self._tower(
            params["user"],
            sum_BTD,
            lambda x_BTF: jax.vmap(lambda x_TF, key: _dropped(x_TF, o.dropout, key))(x_BTF, keys_B) if drops else x_BTF,
        )

    def bias(self, params):
        """float32 [I]: what is added to the score of each item."""
        log_I = jax.lax.stop_gradient(params["item_facts"])[:, -1]
        return params["popularity"] * log_I if self.options.popularity else jnp.zeros_like(log_I)

    def __call__(self, params, batch, key, *, frozen=None, carry=None):
        facts_IE, log_I = (jax.lax.stop_gradient(x) for x in (params["item_facts"][:, :-1], params["item_facts"][:, -1]))
        item_key = keys_B = None
        if key is not None:
            keys_B, item_key = row_keys(key, batch.rows)[1], jax.random.fold_in(key, ITEMS)
        sampled = self.options.in_batch and key is not None  # an evaluation is of all items
        if sampled:
            both_2BTD = self.item_vectors(params, facts_IE[jnp.stack([batch.tokens, batch.targets])], item_key)
            had_BTD, next_BTD = both_2BTD
        else:
            x_ID = self.item_vectors(params, facts_IE, item_key)
            had_BTD = x_ID[batch.tokens]
        user_BTD = self.user_vectors(params, had_BTD, batch.segments, keys_B) * jnp.exp(params["scale"])
        if sampled:
            count_I = jnp.expm1(log_I)
            bias_BT, share_BT = (of_I[batch.targets] for of_I in (self.bias(params), count_I / count_I.sum()))
            nll = sampled_softmax(user_BTD, next_BTD, bias_BT, share_BT, batch.weights > 0, batch.users)
        else:
            bias_I = self.bias(params) if key is None else jnp.where(log_I > 0, self.bias(params), NEVER)
            nll = score_tokens(Head(user_BTD, x_ID, bias_I), batch.targets, shards=self.shards, counted_BT=batch.weights > 0).nll
        terms = {"loss": Term(1.0, (nll * batch.weights).sum(), batch.weights.sum())}
        return terms, {"tokens": tokens_of(batch)}, carry

    def outputs(self, params, batch):
        """{"scores": of all items after the last event, [B, I]; "rows" [B]}."""
        x_ID = self.item_vectors(params, params["item_facts"][:, :-1])
        user_BTD = self.user_vectors(params, x_ID[batch.tokens], batch.segments)
        last_B = jnp.maximum((batch.segments > 0).sum(1) - 1, 0)
        user_BD = jnp.take_along_axis(user_BTD, last_B[:, None, None], axis=1)[:, 0] * jnp.exp(params["scale"])
        return {"scores": logits(Head(user_BD, x_ID, self.bias(params))), "rows": batch.rows}


def sampled_softmax(user_BTD, next_BTD, bias_BT, share_BT, there_BT, users_B):
    """Nats [B, T] of each next item among those of the batch, with scores less the logarithm of how often an item is there (Yi et al. 2019,
    eq. 3): over a large batch that is on average a softmax over all items. The right item is corrected as if it had been drawn, too, so
    items that are rarer than one in a batch are pulled at less than by a softmax over all.

    bias_BT: added to scores; share_BT: how likely an item is the next one of any place; there_BT: places that count. What else the same
    user took is none of the wrong items: a row of one user's events is no sample of all.
    """
    owner_N = jnp.broadcast_to(users_B[:, None], there_BT.shape).reshape(-1)
    place_N, there_N = jnp.arange(len(owner_N)), there_BT.reshape(-1)
    counts_NN = there_N & ((owner_N[:, None] != owner_N) | (place_N[:, None] == place_N))
    corrected_N = (bias_BT - jnp.log(jnp.maximum(share_BT, 1e-12))).reshape(-1)
    user_ND, next_ND = (x.reshape(-1, x.shape[-1]) for x in (user_BTD, next_BTD))
    score_NN = jnp.where(counts_NN, user_ND @ next_ND.T + corrected_N, NEVER)
    own_N = (user_ND * next_ND).sum(-1) + bias_BT.reshape(-1)
    nll_N = jax.nn.logsumexp(score_NN, axis=-1) - jnp.log(jnp.maximum(counts_NN.sum(-1), 1)) - own_N
    return nll_N.reshape(there_BT.shape)


def _dense(features: int, std: float = 0.0):
    return Dense((features,), ("norm", "embed"), std, jnp.dtype(jnp.float32))


def _unit(x):
    return x * jax.lax.rsqrt(jnp.maximum(jnp.square(x).sum(-1, keepdims=True), 1e-12))


def _dropped(x, rate: float, key):
    return x if key is None or not rate else jnp.where(jax.random.bernoulli(key, 1 - rate, x.shape), x / (1 - rate), 0)


def bind(options: TwoTowers, experiment: Experiment, shards: int) -> Bound:
    dataset: Any = home_of(experiment.data)(experiment.data, experiment)
    loss = TwoTowersLoss(options, dataset.facts, shards)
    return Bound(loss, start=loss.start, parts={"items": ("item",)}, outputs=loss.outputs)
