"""One attention, one dispatch to kernels. Every kernel equals `reference`, values and gradients, or it raises."""

import dataclasses
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp

from model.attention.pallas import splash, triton
from model.attention.xla import products
from model.config import ModelConfig
from model.layers import compute_dtype
from model.media.multimodal_config import MultimodalConfig
from model.partition import mesh_axes, shards
from model.positions import behind

MASKED = -1e30  # finite, so that a row whose keys are all masked gives numbers (of weight zero) instead of NaN


@flax.struct.dataclass
class Mask:
    """Which keys a query may see: those of its own segment and, when causal, those not after it and less than `window` before it.

    window: keys that a query sees, its own included; None for all. Only causal masks have one.
    query_segments_BT: int32, or None for 'one segment everywhere'; padding has a segment of its own. key_segments_BS: those of the
    keys, None where queries and keys are the same tokens.
    offset: index among the keys of the first query (decoding with a cache), one for all rows or [B]; 0 when queries and keys are the same
    tokens.
    query_groups_BT, key_groups_BS: int32; with them a causal query sees the keys of its own group and of those before it, wherever they
    stand, so that the places of a picture see one another (the cumulative mask_ar of big_vision). Groups know no window.
    branches_BT: int32; of its segment's keys a query sees those of branch 0, a trunk, and of its own branch, so that several continuations
    stand behind one text and none sees another. Queries and keys are then the same tokens, and there is no window: a branch's tokens
    stand further behind the trunk in the row than in the text.
    prefix: so many keys stand before those that all else is said of, and every query sees them.
    """

    causal: bool = flax.struct.field(pytree_node=False)
    window: int | None = flax.struct.field(pytree_node=False, default=None)
    query_segments_BT: Any = None
    key_segments_BS: Any = None
    offset: Any = None
    query_groups_BT: Any = None
    key_groups_BS: Any = None
    branches_BT: Any = None
    prefix: int = flax.struct.field(pytree_node=False, default=0)

    def __post_init__(self):
        cached = self.key_segments_BS is not None or self.offset is not None
        if self.branches_BT is not None and (not self.causal or self.window is not None or self.query_groups_BT is not None or cached):
            raise ValueError("branches need a causal mask without a window, groups of positions or a cache")
        if self.query_groups_BT is not None and (not self.causal or self.window is not None):
            raise ValueError("groups of positions need a causal mask without a window")
        if self.window is not None and (not self.causal or self.window < 1):
            raise ValueError(f"a window of {self.window} keys needs a causal mask and at least the query's own key")

    def features(self) -> set[str]:
        """What a kernel must be able to honour."""
        found = {"causal"} if self.causal else set()
        if self.window is not None:
            found.add("window")
        if self.query_segments_BT is not None:
            found.add("segments")
        if self.key_segments_BS is not None:
            found.add("key_segments")
        if self.offset is not None:
            found.add("offset")
        if self.query_groups_BT is not None:
            found.add("groups")
        if self.branches_BT is not None:
            found.add("branches")
        if self.prefix:
            found.add("prefix")
        return found

    def allowed(self, queries: int, keys: int):
        """Boolean [B or 1, 1, T, S]: True where the query may see the key; None when it may see everything."""
        if self.prefix:
            allowed = dataclasses.replace(self, prefix=0).allowed(queries, keys - self.prefix)
            return None if allowed is None else jnp.pad(allowed, ((0, 0),) * 3 + ((self.prefix, 0),), constant_values=True)
        allowed_B1TS = None
        if self.query_groups_BT is not None:
            key_groups_BS = self.query_groups_BT if self.key_groups_BS is None else self.key_groups_BS
            allowed_B1TS = (self.query_groups_BT[:, :, None] >= key_groups_BS[:, None, :])[:, None]
        elif self.causal:
            behind_BTS = behind(self.offset, queries, keys)
            allowed_B1TS = (behind_BTS >= 0)[:, None]
            if self.window is not None:
                allowed_B1TS &= (behind_BTS < self.window)[:, None]
        if self.query_segments_BT is not None:
            key_segments_BS = self.query_segments_BT if self.key_segments_BS is None else self.key_segments_BS
            same_B1TS = (self.query_segments_BT[:, :, None] == key_segments_BS[:, None, :])[:, None]
            allowed_B1TS = same_B1TS if allowed_B1TS is None else allowed_B1TS & same_B1TS
        if self.branches_BT is not None:
            branches_B1S = self.branches_BT[:, None, :]
            allowed_B1TS &= ((branches_B1S == 0) | (self.branches_BT[:, :, None] == branches_B1S))[:, None]
        return allowed_B1TS


def reference(q_BTHK, k_BSGK, v_BSGK, mask: Mask, softcap: float = 0.0, bias_BHTS=None):
    """Scaled dot-product attention (Vaswani et al. 2017, eq. 1), written out, with grouped keys and a float32 softmax."""
    v_BSHK = jnp.repeat(v_BSGK, q_BTHK.shape[2] // v_BSGK.shape[2], axis=2)
    weight_BHTS = attention_weights(q_BTHK, k_BSGK, mask, softcap, bias_BHTS).astype(v_BSHK.dtype)
    return jnp.einsum("BHTS,BSHK->BTHK", weight_BHTS, v_BSHK)


def attention_weights(q_BTHK, k_BSGK, mask: Mask, softcap: float = 0.0, bias_BHTS=None):
    """float32 [B, H, T, S]: what each query gives to each key; its row adds up to one."""
    k_BSHK = jnp.repeat(k_BSGK, q_BTHK.shape[2] // k_BSGK.shape[2], axis=2)
    score_BHTS = jnp.einsum("BTHK,BSHK->BHTS", q_BTHK, k_BSHK, preferred_element_type=jnp.float32) * q_BTHK.shape[-1] ** -0.5
    if bias_BHTS is not None:
        score_BHTS += bias_BHTS
    if softcap:
        score_BHTS = softcap * jnp.tanh(score_BHTS / softcap)
    allowed_B1TS = mask.allowed(q_BTHK.shape[1], k_BSGK.shape[1])
    if allowed_B1TS is not None:
        score_BHTS = jnp.where(allowed_B1TS, score_BHTS, MASKED)
    return jax.nn.softmax(score_BHTS, axis=-1)


def xla(q_BTHK, k_BSGK, v_BSGK, mask: Mask, softcap: float = 0.0, bias_BHTS=None):
    """Attention by matrix products, anywhere. It knows no soft cap: the reference does that."""
    if softcap:
        return reference(q_BTHK, k_BSGK, v_BSGK, mask, softcap, bias_BHTS)
    return products(q_BTHK, k_BSGK, v_BSGK, mask, MASKED, bias_BHTS)


def cudnn(q_BTHK, k_BSGK, v_BSGK, mask: Mask, softcap: float = 0.0):
    """cuDNN's fused attention on NVIDIA GPUs, for 16-bit types.

    Segments and branches go in as a bias, which is read from memory ([B, 1, T, S] of it, and its gradient is written): packed rows are
    better served by `triton`. The window is then in the bias too.
    """
    if {"segments", "groups", "branches"} & mask.features():
        allowed_B1TS, in_order = mask.allowed(q_BTHK.shape[1], k_BSGK.shape[1]), mask.causal and mask.query_groups_BT is None
        return jax.nn.dot_product_attention(q_BTHK, k_BSGK, v_BSGK, mask=allowed_B1TS, is_causal=in_order, implementation="cudnn")
    window = None if mask.window is None else (mask.window - 1, 0)
    return jax.nn.dot_product_attention(q_BTHK, k_BSGK, v_BSGK, is_causal=mask.causal, local_window_size=window, implementation="cudnn")


class Problem(NamedTuple):
    """What a kernel is asked for, beside the mask: T queries over S keys, in heads of a width, in a type."""

    queries: int
    keys: int
    width: int
    dtype: Any


def _no_limits(problem: Problem, features: set[str]) -> str:
    return ""


def _splash_limits(problem: Problem, features: set[str]) -> str:
    if problem.queries != problem.keys:
        return f"{problem.queries} queries over {problem.keys} keys"
    return ""


def _triton_limits(problem: Problem, features: set[str]) -> str:
    if problem.queries != problem.keys:
        return f"{problem.queries} queries over {problem.keys} keys"
    return "" if problem.width <= 128 else f"heads {problem.width} wide; 128 is the limit"


def _cudnn_limits(problem: Problem, features: set[str]) -> str:
    if jnp.dtype(problem.dtype).itemsize != 2:
        return f"{jnp.dtype(problem.dtype).name}; it takes bfloat16 and float16"
    if problem.width > 128 or problem.width % 8:
        return f"heads {problem.width} wide; it takes multiples of 8 up to 128"
    # With a bias and half a block over, its gradients were NaN on Hopper (pytorch/pytorch issue 196678).
    if {"segments", "groups", "branches"} & features and (problem.queries % 128 or problem.keys % 128):
        return f"packed rows of {problem.queries}; they must be multiples of 128"
    return ""


class Kernel(NamedTuple):
    """A kernel, the features of mask and scores it honours, and a function that says what else it refuses ("" for nothing)."""

    function: Callable
    features: frozenset[str]
    platform: str
    limits: Callable[[Problem, set[str]], str] = _no_limits


_ALL = frozenset(
    {"causal", "segments", "key_segments", "offset", "window", "softcap", "split_positions", "groups", "bias", "branches", "prefix"}
)


# Tests compare each kernel with `reference`, values and gradients.
KERNELS = {
    "reference": Kernel(reference, _ALL, ""),
    "xla": Kernel(xla, _ALL, ""),
    "splash": Kernel(splash, frozenset({"causal", "segments", "window", "softcap", "split_positions"}), "tpu", _splash_limits),
    "triton": Kernel(triton, frozenset({"causal", "segments"}), "gpu", _triton_limits),
    "cudnn": Kernel(cudnn, frozenset({"causal", "segments", "window", "groups", "branches"}), "gpu", _cudnn_limits),
}


def attend(q_BTHK, k_BSGK, v_BSGK, mask: Mask, kernel: str = "auto", softcap: float = 0.0, bias_BHTS=None):
    """Attention of q_BTHK over k_BSGK, v_BSGK under `mask`; H is a multiple of G. Returns [B, T, H, K] in q's type.

    softcap: scores x become softcap * tanh(x / softcap) before they are masked (Gemma 2, sec. 2); 0 for none. bias_BHTS: added to
    the scaled scores, float32, of one row for all or of each; None for none.
    Raises ValueError when the kernel cannot honour the mask: a wrong mask must never train silently.
    """
    features = mask.features() | ({"softcap"} if softcap else set())
    features |= {"split_positions"} if shards(mesh_axes("length", 0)) > 1 else set()
    features |= set() if bias_BHTS is None else {"bias"}
    problem = Problem(q_BTHK.shape[1], k_BSGK.shape[1], q_BTHK.shape[3], q_BTHK.dtype)
    name = choose_kernel(kernel, features, problem, jax.default_backend())
    more = {} if bias_BHTS is None else {"bias_BHTS": bias_BHTS}
    return KERNELS[name].function(q_BTHK, k_BSGK, v_BSGK, mask, softcap, **more)


def choose_kernel(kernel: str, features: set[str], problem: Problem, platform: str) -> str:
    """The name of the kernel to run; ValueError when the one asked for cannot do it.

    `auto` takes splash on a TPU; on a GPU cuDNN, or Triton for packed rows, where cuDNN would read the mask from memory; XLA's
    attention elsewhere and while decoding. Where an accelerator's fast kernels cannot, it warns, once.
    """
    if kernel != "auto":
        refusal = _refusal(kernel, features, problem)
        if refusal:
            able = [name for name in KERNELS if not _refusal(name, features, problem)]
            raise ValueError(f"attention kernel {kernel!r} cannot honour {refusal}; use one of {', '.join(able)} (model.attention)")
        return kernel
    packed = "segments" in features and not {"groups", "branches"} & features  # which Triton does not know
    fast = {"tpu": ["splash"], "gpu": ["triton", "cudnn"] if packed else ["cudnn", "triton"]}.get(platform, [])
    if "offset" in features:
        return "xla"
    for name in fast:
        if not _refusal(name, features, problem):
            return name
    if fast:
        reasons = "; ".join(f"{name}: {_refusal(name, features, problem)}" for name in fast)
        warnings.warn(f"attention falls back to xla, which holds all scores in memory and is slow ({reasons})", stacklevel=1)
    return "xla"


def _refusal(kernel: str, features: set[str], problem: Problem) -> str:
    """What the kernel cannot do of what is asked; "" when it can."""
    missing = features - KERNELS[kernel].features
    return ", ".join(sorted(missing)) or KERNELS[kernel].limits(problem, features)


def layer_kernels(config: ModelConfig, platform: str, *, split_positions: bool = False, causal: bool = True) -> list[str]:
    """The kernels that training on packed rows will use, one name for each kind of layer; ValueError as `choose_kernel`."""
    found = []
    for window in sorted({config.layer_window(layer) for layer in range(config.num_layers)}, key=bool):
        features = {"segments"} | ({"window"} if window else set()) | ({"softcap"} if config.attention_softcap else set())
        features |= {"causal"} if causal else set()
        features |= {"bias"} if config.positions in ("relative", "distance") else set()
        features |= {"split_positions"} if split_positions else set()
        features |= {"groups"} if isinstance(config, MultimodalConfig) else set()
        problem = Problem(config.context_length, config.context_length, config.head_width, compute_dtype(config))
        name = choose_kernel(config.attention, features, problem, platform)
        if KERNELS[name].platform not in ("", platform):
            raise ValueError(f"attention kernel {name!r} runs on a {KERNELS[name].platform}; this is a {platform} (model.attention)")
        found.append(name)
    return list(dict.fromkeys(found))
