"""Replaced token detection: a small masked language model puts tokens in a text, and a discriminator finds them."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from data.errors import UserError
from model.heads import CHUNK_ELEMENTS, Head, logits, score_tokens
from model.layers import ACTIVATIONS, Dense, compute_dtype
from model.text_encoder_config import TextEncoderConfig
from train.experiment import Experiment
from train.kinds import Bound, realise
from train.objectives.terms import Mean, Term
from train.objectives.text.checks import check_encoder, tokens_of
from train.objectives.text.corruption import Hiding, present, row_keys
from train.objectives.text.masked_lm import at_places, hide_rows
from train.objectives.text.options import ReplacedTokens

SHARED = ("embedding", "positions", "token_types")
"""Parameters of the generator that are the discriminator's (Clark et al. 2020, sec. 3.2)."""


def generator_config(config: TextEncoderConfig, share: float) -> TextEncoderConfig:
    """The discriminator's encoder, of a smaller width; its tables keep theirs, and are projected."""
    heads = max(1, round(config.num_heads * share))
    width = max(2, round(config.embed_dim * share / heads)) * heads
    return dataclasses.replace(
        config,
        embed_dim=width,
        embedding_dim=config.embedding_width,
        num_heads=heads,
        num_kv_heads=0,
        head_dim=0,
        mlp_dim=max(1, round(config.mlp_width * share)),
        pooler=False,
        prediction_head=True,
    )


def sample_tokens(keys_BK, head: Head, *, softcap: float = 0.0, shards: int = 1):
    """int32 [B, K]: a token of every place, drawn from the head's distribution; logits of a few places at a time are held."""
    rows, vocabulary = max(1, keys_BK.shape[0] // shards), head.table_VD.shape[0]
    chunk = min(keys_BK.shape[1], max(1, CHUNK_ELEMENTS // (rows * vocabulary)))
    found = []
    for first in range(0, keys_BK.shape[1], chunk):
        part = head._replace(hidden_BTD=head.hidden_BTD[:, first : first + chunk])
        draw = jax.vmap(jax.vmap(jax.random.categorical))
        found.append(draw(keys_BK[:, first : first + chunk], logits(part, softcap=softcap)))
    return jnp.concatenate(found, 1)


@dataclasses.dataclass(frozen=True)
class ReplacedTokensLoss:
    """ELECTRA (Clark et al. 2020, sec. 2): min over both of the generator's masked LM loss + detection * the discriminator's.

    batch: TextBatch. Parameters: the discriminator's, and beside them `generator` (but for the tables that both share) and `detector`, the
    discriminator's head. No gradient passes through what was drawn. Terms: `loss`, of the discriminator, nats per token; `generator`, nats
    per hidden token. Metrics: accuracy of the discriminator; recall, of replaced tokens; replaced, their share; generator_accuracy; tokens.
    """

    model: Any
    generator: Any
    options: ReplacedTokens
    shards: int = 1

    def __call__(self, params, batch, key, *, frozen=None, carry=None):
        o = self.options
        corruption_keys_B, keys_B = row_keys(key, batch.rows)
        hide_keys_B, draw_keys_B = jnp.moveaxis(jax.vmap(jax.random.split)(corruption_keys_B), 1, 0)
        model_keys_B, generator_keys_B = (None, None) if keys_B is None else jnp.moveaxis(jax.vmap(jax.random.split)(keys_B), 1, 0)
        where = {"segments_BT": batch.segments, "positions_BT": batch.positions, "types_BT": batch.types}

        # The paper masks all that is chosen; the authors' code, of which its numbers are, leaves 15 % of it (pretrain_helpers.mask).
        how = Hiding(o.rate, o.mask, o.ordinary, masked=0.85, random=0.0)
        masked_BT, chosen_BT = hide_rows(hide_keys_B, batch, how, False)
        own = params["generator"] | {name: params[name] for name in SHARED if name in params}
        hidden_BTD = self.generator.apply({"params": own}, masked_BT, keys_B=generator_keys_B, **where).hidden_BTD
        predicted, places_BK = at_places(self.generator, own, hidden_BTD, batch.tokens, chosen_BT, o.rate)
        weights_BK, softcap = predicted.weights_BK, self.generator.config.logit_softcap
        scores = score_tokens(predicted.head, predicted.targets_BK, want=("nll", "hit"), softcap=softcap, shards=self.shards)

        seen_BT = jax.lax.stop_gradient(self._replaced(own, hidden_BTD, batch.tokens, places_BK, weights_BK, draw_keys_B))
        replaced_BT = (seen_BT != batch.tokens).astype(jnp.float32)
        hidden_BTD = self.model.apply({"params": params}, seen_BT, keys_B=model_keys_B, **where).hidden_BTD
        logits_BT = Detector(self.model.config)(params["detector"], hidden_BTD)
        nll_BT = -jax.nn.log_sigmoid(jnp.where(replaced_BT > 0, logits_BT, -logits_BT))
        hit_BT = ((logits_BT > 0) == (replaced_BT > 0)).astype(jnp.float32)

        there_BT = present(batch).astype(jnp.float32)
        count, masked, changed_BT = there_BT.sum(), weights_BK.sum(), replaced_BT * there_BT
        terms = {
            "loss": Term(o.detection, (nll_BT * there_BT).sum(), count),
            "generator": Term(1.0, (scores.nll * weights_BK).sum(), masked),
        }
        metrics = {
            "accuracy": Mean((hit_BT * there_BT).sum(), count),
            "recall": Mean((hit_BT * changed_BT).sum(), changed_BT.sum()),
            "replaced": Mean(changed_BT.sum(), count),
            "generator_accuracy": Mean((scores.hit * weights_BK).sum(), masked),
            "tokens": tokens_of(batch),
        }
        return terms, metrics, carry

    def _replaced(self, own, hidden_BTD, tokens_BT, places_BK, weights_BK, keys_B):
        """The row with a token that the generator drew in every hidden place."""
        hidden_BKD = jnp.take_along_axis(hidden_BTD, places_BK[..., None], axis=1)
        keys_BK = jax.vmap(lambda key: jax.random.split(key, places_BK.shape[1]))(keys_B)
        head = jax.lax.stop_gradient(self.generator.predictions(own, hidden_BKD))
        drawn_BK = sample_tokens(keys_BK, head, softcap=self.generator.config.logit_softcap, shards=self.shards)

        def put(tokens_T, places_K, there_K, drawn_K):
            return tokens_T.at[jnp.where(there_K, places_K, len(tokens_T))].set(drawn_K, mode="drop")

        return jax.vmap(put)(tokens_BT, places_BK, weights_BK > 0, drawn_BK)


@dataclasses.dataclass(frozen=True)
class Detector:
    """The discriminator's head: a dense layer, the activation, and one logit, that a token was replaced. Parameters: dense, out."""

    config: TextEncoderConfig

    def start(self, key) -> dict[str, Any]:
        """Fresh parameters, boxed with logical axis names."""
        hidden = jnp.zeros((1, self.config.embed_dim))
        return {name: layer.init(jax.random.fold_in(key, n), hidden)["params"] for n, (name, layer) in enumerate(self._layers().items())}

    def __call__(self, params, hidden_BTD):
        """float32 [B, T]."""
        layers = self._layers()
        hidden_BTD = ACTIVATIONS[self.config.activation](layers["dense"].apply({"params": params["dense"]}, hidden_BTD))
        return layers["out"].apply({"params": params["out"]}, hidden_BTD)[..., 0].astype(jnp.float32)

    def _layers(self) -> dict[str, Dense]:
        c, dtype = self.config, compute_dtype(self.config)
        return {
            "dense": Dense((c.embed_dim,), ("mlp", "embed"), c.init_std, dtype, bias=True),
            "out": Dense((1,), ("embed", "norm"), c.init_std, dtype, bias=True),
        }


def bind(options: ReplacedTokens, experiment: Experiment, shards: int) -> Bound:
    check_encoder(options, experiment)
    config = experiment.model
    assert isinstance(config, TextEncoderConfig)
    try:
        smaller = generator_config(config, options.generator_size)
    except ValueError as error:
        raise UserError(f"objective.generator_size {options.generator_size}: {error}", "Set another.") from None
    model, generator = realise(config), realise(smaller)

    def start(key):
        keys = jax.random.split(key, 3)
        small = {name: part for name, part in generator.start(keys[1]).items() if name not in SHARED}
        return model.start(keys[0]) | {"generator": small, "detector": Detector(config).start(keys[2])}

    parts = model.parts() | {"generator": ("generator",), "detector of replaced tokens": ("detector",)}
    return Bound(ReplacedTokensLoss(model, generator, options, shards), start=start, parts=parts)
