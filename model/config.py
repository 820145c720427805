"""The shape of a model, as plain values. Imports nothing heavy: a config file and `--help` read it without Flax."""

import dataclasses
from typing import Literal


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """One decoder-only Transformer. GPT-2, Llama and what lies between differ in these fields alone."""

    vocab_size: int = 0
    """Rows of the embedding table. 0: all ids of the tokenizer, special ones included, rounded up to a multiple of 64."""
    context_length: int = 1024
    """Tokens the model is trained to see at once; the number of learned positions where those are used."""
    num_layers: int = 12
    """Transformer blocks."""
    embed_dim: int = 768
    """Width of the residual stream."""
    num_heads: int = 12
    """Query heads of each attention layer."""
    num_kv_heads: int = 0
    """Key and value heads (grouped-query attention); divides num_heads. 0: as many as num_heads."""
    head_dim: int = 0
    """Width of one head. 0: embed_dim / num_heads."""
    mlp_dim: int = 0
    """Width of the feed-forward layer. 0: 4 * embed_dim."""
    norm: Literal["layernorm", "rmsnorm"] = "layernorm"
    """LayerNorm (Ba et al. 2016) or RMSNorm (Zhang & Sennrich 2019), before each sub-layer and at the end."""
    norm_epsilon: float = 1e-5
    """Added to the variance before its square root."""
    activation: Literal["gelu", "gelu_tanh", "relu_squared", "silu"] = "gelu"
    """gelu is the exact form (erf); gelu_tanh the approximation that the released GPT-2 weights were trained with."""
    gated: bool = False
    """Multiply the activation by a second projection (Shazeer 2020): with silu this is SwiGLU."""
    positions: Literal["learned", "rotary"] = "learned"
    """Learned absolute positions (GPT-2) or rotary ones (Su et al. 2021)."""
    rotary_base: float = 10_000.0
    """Base of the rotary wavelengths."""
    bias: bool = True
    """Biases in projections and in LayerNorm."""
    qk_norm: bool = False
    """RMSNorm over each head's queries and keys before their product (Dehghani et al. 2023)."""
    tied_embeddings: bool = True
    """Use the embedding table as the output projection too (Press & Wolf 2017)."""
    dropout: float = 0.0
    """Share of elements dropped after the embedding and after each sub-layer while training."""
    init_std: float = 0.02
    """Standard deviation of initial weights; output projections of sub-layers use init_std / sqrt(2 * num_layers)."""
    scan: bool = False
    """Compile one block and scan it over the layers: compiles faster, runs slower on a CPU or a few GPUs. Same checkpoint."""
    remat: Literal["none", "full", "dots", "sublayers"] = "none"
    """What the backward pass recomputes: nothing, all of each block, all but matrix products, or all but sub-layer outputs."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Type of the matrix products; parameters, norms, softmax and loss stay float32. auto: bfloat16 on accelerators, float32 on CPU."""
    attention: Literal["auto", "reference", "xla", "cudnn"] = "auto"
    """Attention kernel. One that cannot honour the mask it is given raises."""

    def __post_init__(self):
        positive = ("context_length", "num_layers", "embed_dim", "num_heads")
        for name in positive:
            if getattr(self, name) <= 0:
                raise ValueError(f"model.{name} is {getattr(self, name)}; it must be positive")
        for name in ("vocab_size", "num_kv_heads", "head_dim", "mlp_dim"):
            if getattr(self, name) < 0:
                raise ValueError(f"model.{name} is {getattr(self, name)}; it must be positive, or 0 for its default")
        if self.head_dim == 0 and self.embed_dim % self.num_heads:
            raise ValueError(
                f"model.embed_dim {self.embed_dim} is not a multiple of model.num_heads {self.num_heads}: change one, or set model.head_dim"
            )
        if self.num_heads % self.kv_heads:
            raise ValueError(f"model.num_heads {self.num_heads} is not a multiple of model.num_kv_heads {self.num_kv_heads}")
        if self.positions == "rotary" and self.head_width % 2:
            raise ValueError(f"rotary positions need an even head width; model.head_dim is {self.head_width}")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"model.dropout is {self.dropout}; it must lie in [0, 1)")

    @property
    def kv_heads(self) -> int:
        return self.num_kv_heads or self.num_heads

    @property
    def head_width(self) -> int:
        return self.head_dim or self.embed_dim // self.num_heads

    @property
    def mlp_width(self) -> int:
        return self.mlp_dim or 4 * self.embed_dim
