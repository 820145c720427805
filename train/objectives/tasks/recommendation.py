"""The next item of a user, by a decoder that reads items instead of tokens (Kang and McAuley 2018, SASRec)."""

import dataclasses
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp

from data.errors import UserError
from model.config import ModelConfig
from model.heads import Head, logits, score_tokens
from model.layers import Dense, Table
from model.transformer import Media
from train.experiment import Experiment
from train.kinds import Bound, Objective, check_range, home_of, realise
from train.objectives.terms import Term
from train.objectives.text.checks import tokens_of
from train.objectives.text.corruption import row_keys

NEVER = -1e30


_SIZES = ("items", "text_width", "feature_width", "kinds", "users", "user_width")


@dataclasses.dataclass(frozen=True)
class NextItem(Objective):
    """Softmax over all items at every event: sampled ones make the model too sure of itself (Petrov and Macdonald 2023, sec. 4)."""

    home: ClassVar[str] = ":bind"
    reads: ClassVar[tuple[str, ...]] = ("interactions",)
    only_evaluated: ClassVar[tuple[str, ...]] = ("diversity",)
    of_texts: ClassVar[bool] = False

    item_dropout: float = 0.0
    """Share of items that in a step have no vector of their own, only that of their text and features, so that items which nobody had are
    scored as well (after Volkovs et al. 2017). 0 to below 1."""
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
    kinds: int = 0
    """Kinds of events. 0: those of the data."""
    users: int = 0
    """Users. 0: those of the data."""
    user_width: int = 0
    """Width of the features of users. 0: of the data."""

    def __post_init__(self):
        check_range("objective.", self, 0, "item_dropout", high=1)
        check_range("objective.", self, 0, "diversity", high=101)
        check_range("objective.", self, 0, *_SIZES)

    @property
    def unit(self) -> Literal["token", "example", "batch"]:
        return "token"

    def completed(self, sources: list) -> "NextItem":
        found = dataclasses.replace(self, **sources[0].dataset.widths())
        if self.items and found != self:
            raise UserError("objective: its sizes are not those of the data", f"Leave {', '.join(_SIZES)} out.")
        if self.item_dropout and not found.text_width + found.feature_width:
            raise UserError(
                "objective.item_dropout leaves an item to its text and features, and there are none",
                "Give --data.encoder or --data.features.",
            )
        return found


@dataclasses.dataclass(frozen=True)
class NextItemLoss:
    """batch: ItemBatch. Term `loss`: nats per event, weighted by its kind. Metric: tokens, the events.

    Parameters: the decoder's without its embedding; items: embedding/table [I, D], text and features (kernels to D), kinds/table [K, D],
    popularity [1]; item_facts [I, E + F + 1], which is not trained: vectors of texts, features, log(1 + frequency in training).

    With features of users also user_facts [U, F'], not trained, and user/kernel: what it makes of them is added to every hidden state, a
    second head beside that of the events.

    The vector of an item is the sum of its own, of its text's and of its features'; it is read as well as predicted. An item without events
    in training has none of its own, and is no candidate in training.
    """

    model: Any
    options: NextItem
    facts: Any
    user_facts: Any
    shards: int = 1

    def start(self, key):
        """Fresh parameters, boxed with logical axis names."""
        o, c = self.options, self.model.config
        keys = iter(jax.random.split(jax.random.fold_in(key, 1), 4))
        items: dict[str, Any] = {"embedding": Table(o.items, c.embed_dim, ("vocab", "embed"), c.init_std).init(next(keys))["params"]}
        for name, width in (("text", o.text_width), ("features", o.feature_width)):
            if width:
                items[name] = _projection(c).init(next(keys), jnp.zeros((1, width)))["params"]
        if o.kinds > 1:
            items["kinds"] = Table(o.kinds, c.embed_dim, ("vocab", "embed"), c.init_std).init(next(keys))["params"]
        if o.popularity:
            items["popularity"] = jnp.ones(1)
        shape = jax.ShapeDtypeStruct((o.items, o.text_width + o.feature_width + 1), jnp.float32)
        own = {name: part for name, part in self.model.start(key).items() if name not in ("embedding", "head")}
        own |= {"items": items, "item_facts": jax.pure_callback(self.facts, shape)}
        if o.user_width:
            shape = jax.ShapeDtypeStruct((o.users, o.user_width), jnp.float32)
            own["user"] = _projection(c).init(jax.random.fold_in(key, 2), jnp.zeros((1, o.user_width)))["params"]
            own["user_facts"] = jax.pure_callback(self.user_facts, shape)
        return own

    def vectors(self, params, kept_I=None):
        """float32 [I, D]; kept_I: 0 for items that are left to their text and features."""
        o, items, facts_IF = self.options, params["items"], jax.lax.stop_gradient(params["item_facts"])
        own_I = (facts_IF[:, -1] > 0) if kept_I is None else (facts_IF[:, -1] > 0) & kept_I
        x_ID = jnp.where(own_I[:, None], items["embedding"]["table"], 0)
        if o.text_width:
            x_ID += _projection(self.model.config).apply({"params": items["text"]}, facts_IF[:, : o.text_width])
        if o.feature_width:
            x_ID += _projection(self.model.config).apply({"params": items["features"]}, facts_IF[:, o.text_width : -1])
        return x_ID

    def read(self, params, batch, key):
        """(hidden states [B, T, D], vectors of items [I, D], their biases [I])."""
        keys_B, kept_I = None, None
        if key is not None:
            keys_B = row_keys(key, batch.rows)[1]
            if self.options.item_dropout:
                draw = jax.random.fold_in(key, ITEMS)
                kept_I = jax.random.bernoulli(draw, 1 - self.options.item_dropout, (self.options.items,))
        x_ID = self.vectors(params, kept_I)
        media = None
        if self.options.kinds > 1:
            x_BTD = x_ID[batch.tokens] + params["items"]["kinds"]["table"][batch.kinds]
            media = Media(x_BTD, jnp.broadcast_to(1 + jnp.arange(x_BTD.shape[1]), batch.tokens.shape), batch.positions)
        own = {name: part for name, part in params.items() if name not in _BESIDE}
        where = {"segments_BT": batch.segments, "positions_BT": batch.positions, "keys_B": keys_B, "media": media}
        hidden_BTD = self.model.apply({"params": own | {"embedding": {"table": x_ID}}}, batch.tokens, **where).hidden_BTD
        if self.options.user_width:
            facts_BF = jax.lax.stop_gradient(params["user_facts"])[batch.users]
            hidden_BTD += _projection(self.model.config).apply({"params": params["user"]}, facts_BF)[:, None]
        log_I = jax.lax.stop_gradient(params["item_facts"])[:, -1]
        bias_I = params["items"]["popularity"] * log_I if self.options.popularity else jnp.zeros_like(log_I)
        return hidden_BTD, x_ID, bias_I

    def __call__(self, params, batch, key, *, frozen=None, carry=None):
        hidden_BTD, x_ID, bias_I = self.read(params, batch, key)
        if key is not None:
            bias_I = jnp.where(params["item_facts"][:, -1] > 0, bias_I, NEVER)
        scores = score_tokens(Head(hidden_BTD, x_ID, bias_I), batch.targets, shards=self.shards)
        terms = {"loss": Term(1.0, (scores.nll * batch.weights).sum(), batch.weights.sum())}
        return terms, {"tokens": tokens_of(batch)}, carry

    def outputs(self, params, batch):
        """{"scores": of all items after the last event, [B, I]; "rows" [B]}."""
        hidden_BTD, x_ID, bias_I = self.read(params, batch, None)
        last_B = jnp.maximum((batch.segments > 0).sum(1) - 1, 0)
        hidden_BD = jnp.take_along_axis(hidden_BTD, last_B[:, None, None], axis=1)[:, 0]
        return {"scores": logits(Head(hidden_BD, x_ID, bias_I)), "rows": batch.rows}


_BESIDE = ("items", "item_facts", "user", "user_facts")
"""Parameters that are not the decoder's."""
ITEMS = 1 << 22
"""Folded into the key of a step, apart from what rows fold in."""


def _projection(config):
    return Dense((config.embed_dim,), ("norm", "embed"), config.init_std, jnp.dtype(jnp.float32))


def bind(options: NextItem, experiment: Experiment, shards: int) -> Bound:
    if type(experiment.model) is not ModelConfig:
        raise UserError("objective NextItem needs a decoder", "Choose a ModelConfig in the config file.")
    dataset: Any = home_of(experiment.data)(experiment.data, experiment)
    model = realise(dataclasses.replace(experiment.model, vocab_size=options.items))  # its tokens are items
    loss = NextItemLoss(model, options, dataset.facts, lambda: dataset.log.user_features_UF, shards)
    parts = {name: path for name, path in model.parts().items() if name not in ("embedding", "head")}
    return Bound(loss, start=loss.start, parts=parts | {"items": ("items",)}, outputs=loss.outputs)
