"""Prefixes: trained places that every token sees, as keys and values or as vectors that the model reads."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from data.errors import UserError
from model.layers import compute_dtype
from model.transformer import Decoder
from train.adapters.method import FLOAT, Method, key_of, overlaid
from train.adapters.options import Prefix, Prompt
from train.kinds import realise
from train.runs.parts import put, without

ABLE = ("auto", "xla", "reference")
"""Attention kernels that know a prefix; auto is then xla."""
STD = 0.02
"""Of keys and values at the start."""


class Prefixes(Method):
    """Prefix-tuning (Li & Liang 2021, sec. 4.2), the keys and values being trained themselves: [length, heads, width] in each layer.

    Even at the start a prefix takes a share of the attention of every token.
    """

    options: Prefix
    mergeable = False

    def __init__(self, options, experiment):
        super().__init__(options, experiment)
        _check_kernel(experiment.model)

    def fresh(self, key, boxed):
        found = {}
        for path, box in sorted(boxed.items()):
            if path[-3:-1] not in (("attention", "key"), ("attention", "value")) or path[-1] != "kernel":
                continue
            shape, stack = nn.unbox(box).shape, int("layers" in path)
            size = (*shape[:stack], self.options.length, *shape[-2:])
            value = STD * jax.random.normal(key_of(key, path), size, FLOAT)
            found[*path[:-2], "prefix", path[-2]] = nn.LogicallyPartitioned(value, (*box.names[:stack], None, *box.names[-2:]))
        return found


def _check_kernel(config) -> None:
    """UserError for an attention kernel that knows no keys that every token sees."""
    if config.attention not in ABLE:
        raise UserError(f"model.attention {config.attention} knows no prefix", f"Choose --model.attention {' or '.join(ABLE)}.")


class Prompts(Method):
    """Prompt tuning (Lester et al. 2021, sec. 2) of a decoder: a prefix whose keys and values the model makes of trained vectors.

    The vectors stand where tokens are looked up and placed, so learned or sinusoidal positions are a part of them; by rotary ones they
    stand before the first token.
    """

    options: Prompt
    mergeable = False

    def __init__(self, options, experiment):
        super().__init__(options, experiment)
        self._model, config = realise(experiment.model), experiment.model
        _check_kernel(config)
        if not isinstance(self._model, Decoder) or config.layer_groups:
            what = "layers that share parameters" if isinstance(self._model, Decoder) else type(config).__name__
            raise UserError(f"adapters: a prompt is for decoders, not for {what}", "Choose --adapters prefix.")

    def fresh(self, key, boxed):
        vectors = jax.random.normal(key_of(key, ("prompt",)), (self.options.length, self.experiment.model.embed_dim), FLOAT)
        return {("prompt", "vectors"): nn.LogicallyPartitioned(vectors, (None, "embed"))}

    def begun(self, base, trained):
        """With the deviation of the vectors of tokens."""
        vectors = trained["prompt"]["vectors"]
        return put(trained, ("prompt", "vectors"), jax.device_put(vectors * base["embedding"]["table"].std(), vectors.sharding))

    def read(self, base, trained, key=None):
        config, vectors_PD = self.experiment.model, trained["prompt"]["vectors"]
        others, length = without(trained, ("prompt",)), self.options.length
        output = self._model.apply(
            {"params": overlaid(base, others)},
            jnp.zeros((1, length), jnp.int32),
            stream_BTD=vectors_PD[None].astype(compute_dtype(config)),
            positions_BT=jnp.arange(-length, 0)[None] if config.positions == "rotary" else jnp.arange(length)[None],
            cache=(self._model.empty_cache(1, length), 0),
            valid_BS=jnp.ones((1, length), jnp.int32),
        )
        # A cache has heads first.
        keys, values = (jnp.stack([jnp.swapaxes(layer[i], 0, 1) for layer in output.cache[: config.num_layers]]) for i in (0, 1))
        return put(others, ("layers", "attention", "prefix"), {"key": keys, "value": values})
