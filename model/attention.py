"""One attention, one dispatch to kernels. Every kernel equals `reference`, values and gradients, or it raises."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

MASKED = -1e30  # finite, so that a row whose keys are all masked gives numbers (of weight zero) instead of NaN


@flax.struct.dataclass
class Mask:
    """Which keys a query may see: those of its own segment and, when causal, those not after it and less than `window` before it.

    window: keys that a query sees, its own included; None for all. Only causal masks have one.
    query_segments_BT, key_segments_BS: int32 or None for 'one segment everywhere'; padding has a segment of its own.
    offset: index among the keys of the first query (decoding with a cache); 0 when queries and keys are the same tokens.
    """

    causal: bool = flax.struct.field(pytree_node=False)
    window: int | None = flax.struct.field(pytree_node=False, default=None)
    query_segments_BT: Any = None
    key_segments_BS: Any = None
    offset: Any = None

    def __post_init__(self):
        if self.window is not None and (not self.causal or self.window < 1):
            raise ValueError(f"a window of {self.window} keys needs a causal mask and at least the query's own key")

    def features(self) -> set[str]:
        """What a kernel must be able to honour."""
        found = {"causal"} if self.causal else set()
        if self.window is not None:
            found.add("window")
        if self.query_segments_BT is not None:
            found.add("segments")
        if self.offset is not None:
            found.add("offset")
        return found

    def allowed(self, queries: int, keys: int):
        """Boolean [B or 1, 1, T, S]: True where the query may see the key; None when it may see everything."""
        allowed_B1TS = None
        if self.causal:
            first = 0 if self.offset is None else self.offset
            query_T1, key_1S = first + jnp.arange(queries)[:, None], jnp.arange(keys)[None, :]
            allowed_B1TS = (query_T1 >= key_1S)[None, None]
            if self.window is not None:
                allowed_B1TS &= (query_T1 - key_1S < self.window)[None, None]
        if self.query_segments_BT is not None:
            same_B1TS = (self.query_segments_BT[:, :, None] == self.key_segments_BS[:, None, :])[:, None]
            allowed_B1TS = same_B1TS if allowed_B1TS is None else allowed_B1TS & same_B1TS
        return allowed_B1TS


def reference(q_BTHK, k_BSGK, v_BSGK, mask: Mask, softcap: float = 0.0):
    """Scaled dot-product attention (Vaswani et al. 2017, eq. 1), written out, with grouped keys and a float32 softmax."""
    groups = q_BTHK.shape[2] // k_BSGK.shape[2]
    k_BSHK, v_BSHK = jnp.repeat(k_BSGK, groups, axis=2), jnp.repeat(v_BSGK, groups, axis=2)
    score_BHTS = jnp.einsum("BTHK,BSHK->BHTS", q_BTHK, k_BSHK, preferred_element_type=jnp.float32) * q_BTHK.shape[-1] ** -0.5
    if softcap:
        score_BHTS = softcap * jnp.tanh(score_BHTS / softcap)
    allowed_B1TS = mask.allowed(q_BTHK.shape[1], k_BSGK.shape[1])
    if allowed_B1TS is not None:
        score_BHTS = jnp.where(allowed_B1TS, score_BHTS, MASKED)
    weight_BHTS = jax.nn.softmax(score_BHTS, axis=-1).astype(v_BSHK.dtype)
    return jnp.einsum("BHTS,BSHK->BTHK", weight_BHTS, v_BSHK)


def xla(q_BTHK, k_BSGK, v_BSGK, mask: Mask, softcap: float = 0.0):
    """XLA's own attention, which fuses the mask and keeps grouped keys unrepeated. It knows no soft cap: the reference does that."""
    if softcap:
        return reference(q_BTHK, k_BSGK, v_BSGK, mask, softcap)
    if mask.features() == {"causal"}:
        return jax.nn.dot_product_attention(q_BTHK, k_BSGK, v_BSGK, is_causal=True, implementation="xla")
    allowed_B1TS = mask.allowed(q_BTHK.shape[1], k_BSGK.shape[1])
    return jax.nn.dot_product_attention(q_BTHK, k_BSGK, v_BSGK, mask=allowed_B1TS, implementation="xla")


def cudnn(q_BTHK, k_BSGK, v_BSGK, mask: Mask, softcap: float = 0.0):
    """cuDNN's fused attention on NVIDIA GPUs, for 16-bit types."""
    return jax.nn.dot_product_attention(q_BTHK, k_BSGK, v_BSGK, is_causal=mask.causal, implementation="cudnn")


# kernel -> the features of mask and scores it honours. Tests compare each with `reference`.
KERNELS = {
    "reference": (reference, {"causal", "segments", "offset", "window", "softcap"}),
    "xla": (xla, {"causal", "segments", "offset", "window", "softcap"}),
    "cudnn": (cudnn, {"causal"}),
}


def attend(q_BTHK, k_BSGK, v_BSGK, mask: Mask, kernel: str = "auto", softcap: float = 0.0):
    """Attention of q_BTHK over k_BSGK, v_BSGK under `mask`; H is a multiple of G. Returns [B, T, H, K] in q's type.

    softcap: scores x become softcap * tanh(x / softcap) before they are masked (Gemma 2, sec. 2); 0 for none.
    Raises ValueError when the kernel cannot honour the mask: a wrong mask must never train silently.
    """
    features = mask.features() | ({"softcap"} if softcap else set())
    return choose_kernel(kernel, features)(q_BTHK, k_BSGK, v_BSGK, mask, softcap)


def choose_kernel(kernel: str, features: set[str]):
    """The function of a kernel; ValueError when it cannot honour `features`."""
    name = "xla" if kernel == "auto" else kernel
    function, honoured = KERNELS[name]
    if not features <= honoured:
        able = [other for other, (_, known) in KERNELS.items() if features <= known]
        raise ValueError(
            f"attention kernel {name!r} cannot honour {', '.join(sorted(features - honoured))}; "
            f"use one of {', '.join(able)} (model.attention)"
        )
    return function
