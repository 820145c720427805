"""Prefixes: trained places that every token sees, as keys and values or as vectors that the model reads."""

import flax.linen as nn
import jax

from data.errors import UserError
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
    """Prompt tuning (Lester et al. 2021, sec. 2): a prefix whose keys and values the model makes of trained vectors.

    In a decoder they stand where tokens are looked up and placed, so learned or sinusoidal positions are a part of them; by rotary ones
    they stand before the first token. In encoders, where tokens see what follows them, they see one another and no text: the authors' see
    both, and cost each text of a row their own places. An encoder-decoder has them before what it reads.
    """

    options: Prompt
    mergeable = False

    def __init__(self, options, experiment):
        super().__init__(options, experiment)
        self._model, config = realise(experiment.model), experiment.model
        _check_kernel(config)
        if not hasattr(self._model, "prompted") or config.layer_groups:
            what = "layers that share parameters" if config.layer_groups else type(config).__name__
            raise UserError(f"adapters: there is no prompt for {what}", "Choose --adapters lora.")

    def fresh(self, key, boxed):
        width = nn.unbox(boxed["embedding", "table"]).shape[-1]
        vectors = jax.random.normal(key_of(key, ("prompt",)), (self.options.length, width), FLOAT)
        return {("prompt", "vectors"): nn.LogicallyPartitioned(vectors, (None, "embed"))}

    def begun(self, base, trained):
        """With the deviation of the vectors of tokens."""
        vectors = trained["prompt"]["vectors"]
        return put(trained, ("prompt", "vectors"), jax.device_put(vectors * base["embedding"]["table"].std(), vectors.sharding))

    def read(self, base, trained, key=None):
        others = without(trained, ("prompt",))
        return overlaid(others, self._model.prompted(overlaid(base, others), trained["prompt"]["vectors"]))
