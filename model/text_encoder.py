"""Encoders of text: BERT (Devlin et al. 2019), RoBERTa (Liu et al. 2019), DistilBERT (Sanh et al. 2019), ALBERT (Lan et al. 2020)."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from model.attention.dispatch import Mask, layer_kernels
from model.heads import Head
from model.layers import ACTIVATIONS, Dense, Norm, Table, compute_dtype, constrain, dropped
from model.stack import Context, angles_of, create_layers, run_layers
from model.text import as_prefix, before_text, empty_cache, final_norm, place, relative_bias, shifted, token_vectors
from model.text_encoder_config import TextEncoderConfig
from model.transformer import Output


class PredictionHead(nn.Module):
    """What a masked token is predicted from: hidden_BTD to [B, T, width of the embedding]. Parameters: dense, norm, bias [V]."""

    config: TextEncoderConfig

    @nn.compact
    def __call__(self, hidden_BTD):
        c = self.config
        x_BTD = Dense((c.embedding_width,), ("mlp", "embed"), c.init_std, compute_dtype(c), bias=c.bias, name="dense")(hidden_BTD)
        bias_V = self.param("bias", nn.with_logical_partitioning(nn.initializers.zeros, ("vocab",)), (c.vocab_size,), jnp.float32)
        return Norm(c.norm, c.norm_epsilon, c.bias, name="norm")(ACTIVATIONS[c.activation](x_BTD)), bias_V


class Pooler(nn.Module):
    """tanh of a dense layer, [..., D] to [..., D]. Parameters: dense."""

    config: TextEncoderConfig

    @nn.compact
    def __call__(self, hidden):
        c = self.config
        return jnp.tanh(Dense((c.embed_dim,), ("mlp", "embed"), c.init_std, compute_dtype(c), bias=True, name="dense")(hidden))


class TextEncoder(nn.Module):
    """Bidirectional encoder: tokens to hidden states, each attending to all tokens of its segment.

    Parameters: embedding/table [V, W], positions/table [context, W] and token_types/table [types, W] where there are any, embedding_norm,
    embedding_projection where W is not D, layers/... each stacked over a leading axis `layers`, final_norm unless norm_position is post;
    and beside them, where the config has them, pooler and prediction.
    """

    config: TextEncoderConfig

    @nn.compact
    def __call__(
        self,
        tokens_BT,
        *,
        segments_BT=None,
        positions_BT=None,
        keys_B=None,
        types_BT=None,
        shift_BTW=None,
        vectors_BTW=None,
        cache=None,
        watch: list | None = None,
        streams: list | None = None,
    ) -> Output:
        """tokens_BT: int32 ids. segments_BT: int32, tokens see their own segment only; 0 is padding. positions_BT: int32 within the text,
        default 0..T-1. keys_B: random keys, one a row, for dropout. types_BT: int32, by default all of type 0. shift_BTW: added to
        the vectors of tokens, of the width of their table. vectors_BTW: read in the place of these. cache: as of Decoder, for rows that are
        one text from their first place on. watch, streams: as of Decoder.
        """
        c, dtype = self.config, compute_dtype(self.config)
        if positions_BT is None:
            positions_BT = jnp.broadcast_to(jnp.arange(tokens_BT.shape[1]), tokens_BT.shape)
        if vectors_BTW is None:
            vectors_BTW = token_vectors(c, c.embedding_width)(tokens_BT)
        x_BTW = place(c, shifted(vectors_BTW, shift_BTW), positions_BT)
        if c.token_types:
            table_PW = Table(c.token_types, c.embedding_width, ("positions", "embed"), c.init_std, name="token_types")()
            x_BTW += constrain(table_PW, "positions", "residual")[jnp.zeros_like(tokens_BT) if types_BT is None else types_BT]
        if c.norm_position == "post":  # else the first layer's own norm follows
            x_BTW = Norm(c.norm, c.norm_epsilon, c.bias, name="embedding_norm")(x_BTW)
        x_BTD = x_BTW.astype(dtype)
        if c.embedding_width != c.embed_dim:
            x_BTD = Dense((c.embed_dim,), ("mlp", "embed"), c.init_std, dtype, bias=True, name="embedding_projection")(x_BTD)
        x_BTD = constrain(dropped(c, x_BTD, keys_B), "batch", "length", "residual")

        length = tokens_BT.shape[1]
        where = angles_of(c, positions_BT) | {"bias_1HTS": relative_bias(c, length, length, both_ways=True)}
        counted_BT = segments_BT != 0 if c.experts and segments_BT is not None else None
        context = Context(Mask(causal=False, query_segments_BT=segments_BT), keys_B=keys_B, counted_BT=counted_BT, watch=watch, **where)
        router = None
        if self.is_initializing():
            x_BTD = create_layers(c, x_BTD, context)
        else:
            x_BTD, cache, router, _ = run_layers(c, self.variables["params"], x_BTD, (context,), cache=cache, streams=streams)
        return Output(final_norm(c, x_BTD), cache, router)

    @nn.nowrap
    def start(self, key):
        """Fresh parameters, boxed with logical axis names."""
        c, keys = self.config, jax.random.split(key, 3)
        hidden = jnp.zeros((1, 1, c.embed_dim))
        found = self.init(keys[0], jnp.zeros((1, 1), jnp.int32))["params"]
        if c.pooler:
            found |= {"pooler": Pooler(c).init(keys[1], hidden)["params"]}
        if c.prediction_head:
            found |= {"prediction": PredictionHead(c).init(keys[2], hidden)["params"]}
        return found

    @nn.nowrap
    def prompted(self, params, vectors_PW):
        """As of Decoder; the vectors are those of the first tokens of a text, before these are placed. Every text sees them, and they see
        one another alone, so that a row of several texts needs them once."""
        c, (count, _) = self.config, vectors_PW.shape
        tokens_1P, cache = jnp.zeros((1, count), jnp.int32), (empty_cache(c, 1, count), 0)
        output = self.apply({"params": params}, tokens_1P, positions_BT=before_text(c, count), vectors_BTW=vectors_PW[None], cache=cache)
        return {"layers": {"attention": {"prefix": as_prefix(output.cache)}}}

    @nn.nowrap
    def predictions(self, params, hidden_BTD) -> Head:
        """The head that predicts the tokens at the positions of hidden_BTD. ValueError for an encoder without one."""
        if not self.config.prediction_head:
            raise ValueError("this encoder predicts no tokens: model.prediction_head is off")
        x_BTW, bias_V = PredictionHead(self.config).apply({"params": params["prediction"]}, hidden_BTD)
        return Head(x_BTW, params["embedding"]["table"], bias_V)

    @nn.nowrap
    def pooled(self, params, hidden_BTD, segments_BT, positions_BT, count: int):
        """The pooled first token of each of the segments 1 to `count`, [B, S, D]; zeros for segments that a row lacks."""
        if not self.config.pooler:
            raise ValueError("this encoder has no pooler: model.pooler is off")
        first_BST = (segments_BT[:, None] == jnp.arange(1, count + 1)[:, None]) & (positions_BT == 0)[:, None]
        hidden_BSD = jnp.einsum("BST,BTD->BSD", first_BST.astype(hidden_BTD.dtype), hidden_BTD, precision="highest")
        return jnp.where(first_BST.any(-1)[..., None], Pooler(self.config).apply({"params": params["pooler"]}, hidden_BSD), 0)

    @nn.nowrap
    def parts(self) -> dict[str, tuple[str, ...]]:
        """Where each part stands, by names that all encoders share."""
        names = "embedding positions token_types embedding_norm embedding_projection relative_bias layers final_norm pooler prediction"
        return {name: (name,) for name in names.split()}

    @nn.nowrap
    def kernels(self, platform: str, *, split_positions: bool = False) -> list[str]:
        """Attention kernels in use on a platform. ValueError where the one asked for cannot serve."""
        return layer_kernels(self.config, platform, split_positions=split_positions, causal=False)

    @nn.nowrap
    def training_flops_per_token(self, length: int) -> float | None:
        """None, because the objective decides how many positions are predicted and how often a text is read."""
        return None
