"""What gives a value to a state, or a score to a text: a scalar head, on a decoder's trunk or on one of its own.

Their parameters stand beside a decoder's, under names of their own, so that generation, which looks up the decoder's alone, takes a
policy's parameters as they are: `value` is the head, `critic` what is not shared with the policy.
"""

import dataclasses
import math
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from model.config import DROPOUTS, ModelConfig
from model.transformer import DECODER, Decoder, Output

Layout = Literal["none", "shared", "branch", "separate"]


SCALAR_HEAD = "scalar head on the decoder"
"""What that part is called where a run starts from another: of a critic on the policy's own hidden states, or of a reward model."""


class ScalarHead(nn.Module):
    """A linear function of hidden states, computed in float32: hidden [..., D] to [...]. Parameters, float32: weights [D], bias [].

    std: of the initial weights. 0 gives every state the value 0 (a critic); 1 / sqrt(D + 1) gives scores of about variance 1 (a reward
    model; Ziegler et al. 2019).
    """

    std: float = 0.0

    @nn.compact
    def __call__(self, hidden):
        hidden = hidden.astype(jnp.float32)
        weights_init = nn.with_logical_partitioning(nn.initializers.normal(self.std), ("embed",))
        weights_D = self.param("weights", weights_init, hidden.shape[-1:], jnp.float32)
        return hidden @ weights_D + self.param("bias", nn.initializers.zeros, (), jnp.float32)


def reward_head(config: ModelConfig) -> ScalarHead:
    return ScalarHead(1.0 / math.sqrt(config.embed_dim + 1))


@dataclasses.dataclass(frozen=True)
class Critic:
    """Values of states, in one of three layouts.

    shared: a head on the policy's last hidden states. branch: on copies of its last `layers` layers and final norm, which go on from the
    stream that enters them (so it runs the rest once; trlX's hydra). separate: on a decoder of its own.
    detached: the critic's gradient stops where it leaves its own parameters; always so for a branch.
    """

    config: ModelConfig
    layout: Layout
    layers: int = 1
    detached: bool = False

    def __post_init__(self):
        c = self.config
        if self.layout == "branch":
            if c.positions == "relative" or c.layer_groups:
                what = "relative positions, which all layers share" if c.positions == "relative" else "layers that share parameters"
                raise ValueError(f"a critic that branches off has copies of single layers; the policy has {what}: take a separate critic")
            if not 1 <= self.layers < c.num_layers:
                raise ValueError(
                    f"a critic that branches off before the last {self.layers} layers needs more of them: there are {c.num_layers}"
                )
            fitting = [layers for layers in range(1, c.num_layers) if self._same_windows(layers)]
            if self.layers not in fitting:
                able = f"take one of {', '.join(map(str, fitting))}" if fitting else "take a separate critic"
                raise ValueError(f"a critic's {self.layers} layers would not be of the same kinds as those of the policy: {able}")

    def _same_windows(self, layers: int) -> bool:
        """Whether the last so many layers see as far as the first so many, which is what a stack of copies does."""
        c = self.config
        return all(c.layer_window(c.num_layers - layers + place) == c.layer_window(place) for place in range(layers))

    @property
    def branch_at(self) -> int | None:
        """The layer whose input the policy's decoder must hand over."""
        return self.config.num_layers - self.layers if self.layout == "branch" else None

    def start(self, key) -> dict[str, Any]:
        """Fresh parameters beside the policy's, boxed with logical axis names."""
        if self.layout == "none":
            return {}
        found = {"value": ScalarHead().init(key, jnp.zeros((1, self.config.embed_dim)))["params"]}
        if self.layout != "shared":
            own = Decoder(self._own_config).init(key, jnp.zeros((1, 1), jnp.int32))["params"]
            unused = {"head"} if self.layout == "separate" else {"head", "embedding", "positions"}
            found["critic"] = {name: part for name, part in own.items() if name not in unused}
        return found

    def parts(self) -> dict[str, tuple[str, ...]]:
        """Where its parts stand, by names that tell what hidden states they read."""
        if self.layout == "none":
            return {}
        if self.layout == "shared":
            return {SCALAR_HEAD: ("value",)}
        name = "critic" if self.layout == "separate" else f"critic on the last {self.layers} layers"
        return {name: ("critic",), f"scalar head of the {name}": ("value",)}

    def like_policy(self, params) -> dict[str, Any]:
        """The critic's parameters begun as copies of what they stand for in a policy, or of a reward model, whose head becomes theirs."""
        if self.layout in ("none", "shared"):
            return {}
        whole = {name: part for name, part in params.items() if name in set(DECODER) - {"head"}}
        if self.layout == "branch":
            layers = jax.tree.map(lambda leaf: leaf[self.branch_at :], whole["layers"])
            whole = {"layers": layers, "final_norm": whole["final_norm"]}
        return {"critic": whole}

    def __call__(self, params, output: Output, tokens_BT, segments_BT, positions_BT):
        """values_BT float32: of the state that each position's token completes. output: the policy's, with its stream for a branch."""
        return self.read(params, output, tokens_BT, segments_BT=segments_BT, positions_BT=positions_BT)[0]

    def read(self, params, output: Output, tokens_BT, *, cache=None, **where):
        """values_BT, and the critic's cache with these tokens (None where the layout has none of its own). where, cache: as of Decoder."""
        hidden_BTD = output.hidden_BTD
        if self.layout == "shared":
            cache = None
            if self.detached:
                hidden_BTD = jax.lax.stop_gradient(hidden_BTD)
        else:
            stream_BTD = None if output.stream_BTD is None else jax.lax.stop_gradient(output.stream_BTD)
            own = Decoder(self._own_config).apply({"params": params["critic"]}, tokens_BT, stream_BTD=stream_BTD, cache=cache, **where)
            hidden_BTD, cache = own.hidden_BTD, own.cache
        return ScalarHead().apply({"params": params["value"]}, hidden_BTD), cache

    def empty_cache(self, rows: int, size: int) -> tuple:
        """As of Decoder; () for a layout without layers of its own."""
        return Decoder(self._own_config).empty_cache(rows, size) if self.layers_of_its_own else ()

    @property
    def layers_of_its_own(self) -> int:
        """How many layers a cache of the critic has."""
        return {"none": 0, "shared": 0, "branch": self.layers, "separate": self.config.num_layers}[self.layout]

    @property
    def _own_config(self) -> ModelConfig:
        """A branch goes on from a stream, and looks nothing up."""
        ngrams = 0 if self.layout == "branch" else self.config.ngrams
        changes: dict[str, Any] = {"num_layers": self.layers_of_its_own, "ngrams": ngrams, **dict.fromkeys(DROPOUTS, 0.0)}
        return dataclasses.replace(self.config, **changes)
