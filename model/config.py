"""The shape of a model, as plain values. Imports nothing heavy: a config file and `--help` read it without Flax."""

import dataclasses
import math
from collections.abc import Collection, Mapping
from typing import ClassVar, Literal, Self

DROPOUTS = ("dropout", "token_dropout", "layer_dropout")
"""Fields that say what is dropped in training."""
SWITCHES = ("scan", "remat", "dtype", "attention", *DROPOUTS)
"""Fields that say how a model is run or trained, and that no parameter depends on."""


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """A decoder-only Transformer. GPT-2, Llama and their relatives differ only in these fields."""

    home: ClassVar[str] = "model.transformer:Decoder"
    """The family's module, made of the config."""
    kind: ClassVar[str] = "decoder"
    """What a model must be for a run of this one to start from it."""
    generates: ClassVar[bool] = True
    """Whether the family continues texts: it predicts from what comes before alone, with a cache."""

    vocab_size: int = 0
    """Rows of the embedding table. 0: all ids of the tokenizer, special ones included, rounded up to a multiple of 64."""
    context_length: int = 1024
    """Tokens in a training row; also the number of learned positions."""
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
    """LayerNorm (Ba et al. 2016) or RMSNorm (Zhang & Sennrich 2019)."""
    norm_position: Literal["pre", "post", "both"] = "pre"
    """pre: before each sub-layer, and at the end (Radford et al. 2019). post: after each residual sum (Vaswani et al. 2017; BERT). both:
    pre, and on each sub-layer's output before it is added (Gemma 2, sec. 2)."""
    norm_epsilon: float = 1e-5
    """Added to the variance before its square root."""
    activation: Literal["gelu", "gelu_tanh", "quick_gelu", "relu", "relu_squared", "silu"] = "gelu"
    """gelu is the exact form (erf); gelu_tanh the approximation that the released GPT-2 weights were trained with, quick_gelu CLIP's."""
    gated: bool = False
    """Multiply the activation by a second projection (Shazeer 2020): with silu this is SwiGLU."""
    experts: int = 0
    """Experts (feed-forward layers) per block, chosen by a router (Shazeer et al. 2017). 0: one layer and no router."""
    experts_per_token: int = 2
    """Experts that each token goes through."""
    expert_capacity: float = 0.0
    """Capacity of an expert, in multiples of an even share of the batch; further tokens skip the layer. 0: no limit."""
    positions: Literal["learned", "rotary", "sinusoidal", "relative", "distance"] = "learned"
    """Learned absolute positions (GPT-2), rotary ones (Su et al. 2021), fixed sinusoids (Vaswani et al. 2017), a learned bias of attention
    scores by distance, in buckets (T5, Raffel et al. 2020), or scores from sinusoids of distances (Transformer-XL, Dai et al. 2019)."""
    distance_limit: int = 0
    """With distance: larger distances count as this one (clamp_len in the authors' code). 0: no limit."""
    relative_buckets: int = 32
    """With relative positions: buckets of distances."""
    relative_distance: int = 128
    """With relative positions: keys at this distance or further share a bucket."""
    rotary_base: float = 10_000.0
    """Base of the rotary wavelengths."""
    local_rotary_base: float = 0.0
    """Base in layers with a window, where rotary_scaling does not apply (Gemma 3). 0: rotary_base, scaled."""
    rotary_share: float = 1.0
    """Fraction of each head that is rotated, from its start (GPT-NeoX)."""
    rotary_scaling: Literal["none", "linear", "ntk", "yarn", "llama3"] = "none"
    """How rotary positions extend beyond the pretraining length: linear interpolation (Chen et al. 2023), a larger base (ntk) or YaRN (both
    Peng et al. 2023), or Llama 3.1's rule (Grattafiori et al. 2024)."""
    rotary_factor: float = 1.0
    """How many times longer rotary_scaling makes the context, at least 1."""
    rotary_original_context: int = 0
    """With yarn and llama3: context length of the pretraining."""
    bias: bool = True
    """Biases in projections and in LayerNorm."""
    qkv_bias: bool = False
    """Biases of queries, keys and values even if bias is off (Qwen 2)."""
    qk_norm: bool = False
    """RMSNorm over each head's queries and keys before their product (Dehghani et al. 2023)."""
    window: int = 0
    """Sliding window: keys that a query sees in a local layer, including its own (Beltagy et al. 2020). 0: no window."""
    global_every: int = 0
    """With window: every n-th layer has global attention; 2 is Gemma 2's pattern, 6 Gemma 3's. 0: all layers are local."""
    attention_softcap: float = 0.0
    """Attention scores x become cap * tanh(x / cap) (Gemma 2, sec. 2). 0: no cap."""
    logit_softcap: float = 0.0
    """The same for the output logits. 0: no cap."""
    parallel: bool = False
    """Attention and feed-forward run in parallel on the same input (GPT-J; Chowdhery et al. 2022, sec. 2)."""
    parallel_norms: int = 1
    """With parallel: one norm for both sub-layers (GPT-J), or one each, 2 (GPT-NeoX)."""
    layer_groups: int = 0
    """Groups of successive layers with shared parameters (ALBERT, Lan et al. 2020); divides num_layers. 0: no sharing."""
    ngrams: int = 0
    """Longest n-gram that adds a vector to the embedding of its last token, 2 or more, so that a small model spends no layers on which
    words follow which (after Roy et al. 2022). 0: tokens alone."""
    ngram_rows: int = 32_768
    """With ngrams: rows of the hash table. The optimizer updates all of it in every step."""
    embed_scale: bool = False
    """Multiply token embeddings by sqrt(embed_dim) (Vaswani et al. 2017, sec. 3.4)."""
    tied_embeddings: bool = True
    """Use the embedding table also as the output projection (Press & Wolf 2017)."""
    dropout: float = 0.0
    """Fraction of elements dropped in training, after the embedding and after each sub-layer."""
    token_dropout: float = 0.0
    """Share of tokens whose whole vectors are dropped in training, after the embedding (Gal & Ghahramani 2016, sec. 4.2)."""
    layer_dropout: float = 0.0
    """Probability that a sub-layer is skipped for a row in training (stochastic depth: Huang et al. 2016, eq. 2, at one rate for all)."""
    init_std: float = 0.02
    """Standard deviation of initial weights; output projections of sub-layers use init_std / sqrt(2 * num_layers)."""
    scan: bool = False
    """Compile one block and scan it over the layers: compiles faster, runs slower on a CPU or a few GPUs. Same checkpoint."""
    remat: Literal["none", "full", "dots", "sublayers"] = "none"
    """What the backward pass recomputes: nothing, all of each block, all but matrix products, or all but sub-layer outputs."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Type of the matrix products; parameters, norms, softmax and loss stay float32. auto: bfloat16 on accelerators, float32 on CPU."""
    attention: Literal["auto", "reference", "xla", "splash", "triton", "cudnn"] = "auto"
    """Attention kernel. auto: the fastest for the device and the mask. A kernel that does not support the mask raises an error."""

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
        if self.positions in ("sinusoidal", "distance") and self.embed_dim % 2:
            raise ValueError(f"model.embed_dim is {self.embed_dim}; {self.positions} positions need an even width")
        if self.distance_limit and self.positions != "distance":
            raise ValueError(f"model.distance_limit belongs to model.positions distance; they are {self.positions}")
        if self.ngrams < 0 or self.ngrams == 1:
            raise ValueError(f"model.ngrams is {self.ngrams}; it must be 2 or more, or 0 to do without")
        if self.ngrams and self.ngram_rows < 1:
            raise ValueError(f"model.ngram_rows is {self.ngram_rows}; it must be positive")
        if self.positions == "relative" and not 4 <= self.relative_buckets < 4 * self.relative_distance:
            raise ValueError(
                f"model.relative_buckets {self.relative_buckets} do not fit model.relative_distance {self.relative_distance}: "
                "give at least 4 buckets, and distances beyond a quarter of their number"
            )
        if self.parallel_norms not in (1, 2):
            raise ValueError(f"model.parallel_norms is {self.parallel_norms}; it must be 1 or 2")
        if self.parallel_norms == 2 and not self.parallel:
            raise ValueError("model.parallel_norms 2 belongs to model.parallel")
        if self.parallel and self.norm_position == "post":
            raise ValueError("model.parallel has no norm_position post: both sub-layers read one input")
        if self.qkv_bias and self.bias:
            raise ValueError("model.qkv_bias says nothing beside model.bias, which is for all projections: turn one of them off")
        for name in DROPOUTS:
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ValueError(f"model.{name} is {getattr(self, name)}; it must lie in [0, 1)")
        for name in (
            "window",
            "global_every",
            "attention_softcap",
            "logit_softcap",
            "rotary_original_context",
            "experts",
            "expert_capacity",
            "layer_groups",
            "distance_limit",
            "local_rotary_base",
        ):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"model.{name} is {getattr(self, name)}; it must be positive, or 0 to do without")
        if self.experts and not 1 <= self.experts_per_token <= self.experts:
            raise ValueError(f"model.experts_per_token is {self.experts_per_token}; with model.experts {self.experts}, give 1 to that many")
        if self.expert_capacity and not self.experts:
            raise ValueError(f"model.expert_capacity is {self.expert_capacity}, but there are no model.experts")
        if self.layer_groups and self.num_layers % self.layer_groups:
            raise ValueError(f"model.layer_groups {self.layer_groups} does not divide model.num_layers {self.num_layers}")
        if self.layer_groups and self.scan and self.global_every:
            raise ValueError("model.layer_groups with model.scan needs equal layers: leave model.global_every out")
        self._check_window()
        self._check_rotary()

    def _check_window(self):
        if self.global_every and not self.window:
            raise ValueError(f"model.global_every is {self.global_every}, but without model.window every layer sees everything")
        if self.global_every == 1:
            raise ValueError("model.global_every 1 makes every layer see everything: leave model.window out")
        if self.scan and self.global_every and self.num_layers % self.global_every:
            raise ValueError(
                f"model.scan needs groups of equal layers: model.num_layers {self.num_layers} is not a multiple of "
                f"model.global_every {self.global_every}"
            )

    def _check_rotary(self):
        if not 0.0 < self.rotary_share <= 1.0:
            raise ValueError(f"model.rotary_share is {self.rotary_share}; it must lie in (0, 1]")
        if self.positions == "rotary" and (self.rotary_width % 2 or not self.rotary_width):
            raise ValueError(
                f"rotary positions turn pairs: model.rotary_share {self.rotary_share:g} of a head of width {self.head_width} must be even"
            )
        if self.local_rotary_base and not (self.window and self.positions == "rotary"):
            raise ValueError("model.local_rotary_base belongs to rotary positions and a model.window")
        scaled = self.rotary_scaling != "none"
        if scaled and self.positions != "rotary":
            raise ValueError(f"model.rotary_scaling {self.rotary_scaling} needs model.positions rotary; they are {self.positions}")
        if not 1.0 <= self.rotary_factor < math.inf:
            raise ValueError(f"model.rotary_factor is {self.rotary_factor}; it must be at least 1")
        if self.rotary_scaling == "ntk" and self.rotary_width == 2:
            raise ValueError("model.rotary_scaling ntk spreads the factor over the pairs of a head, and a head of width 2 has but one")
        if self.rotary_factor != 1.0 and not scaled:
            raise ValueError(f"model.rotary_factor is {self.rotary_factor}, but model.rotary_scaling is none")
        if bool(self.rotary_original_context) != (self.rotary_scaling in ("yarn", "llama3")):
            raise ValueError(
                f"model.rotary_original_context is {self.rotary_original_context} with model.rotary_scaling {self.rotary_scaling}: "
                "yarn and llama3 need it, the others have no use for it"
            )

    @property
    def kv_heads(self) -> int:
        return self.num_kv_heads or self.num_heads

    @property
    def head_width(self) -> int:
        return self.head_dim or self.embed_dim // self.num_heads

    @property
    def rotary_width(self) -> int:
        """Values of a head that are rotated."""
        return int(self.head_width * self.rotary_share)

    @property
    def own_layers(self) -> int:
        """Layers with parameters of their own."""
        return self.layer_groups or self.num_layers

    def layer_group(self, layer: int) -> int:
        """Which of those are the parameters of layer number `layer`, counted from 0."""
        return layer * self.own_layers // self.num_layers

    def layer_window(self, layer: int) -> int | None:
        """Keys that layer number `layer`, counted from 0, sees; None for everything."""
        is_global = self.global_every and (layer + 1) % self.global_every == 0
        return self.window if self.window and not is_global else None

    @property
    def mlp_width(self) -> int:
        return self.mlp_dim or 4 * self.embed_dim

    @property
    def hashed_rows(self) -> int:
        """Rows of the table of n-grams, 0 without one."""
        return self.ngram_rows if self.ngrams else 0

    def completed(self, size: int, specials: Mapping[str, int]) -> Self:
        """The config with the fields that depend on the tokenizer: vocab_size for `size` ids, rounded up to a multiple of 64. ValueError
        if the tokenizer lacks a needed special id."""
        return dataclasses.replace(self, vocab_size=self.vocab_size or -(-size // 64) * 64)

    @property
    def drops(self) -> bool:
        """Whether two passes of training over the same row differ."""
        return any(getattr(self, name) for name in DROPOUTS)

    def started_from(self, theirs: "ModelConfig", has_decoder: bool, projectors: Collection[str] = (), **switches) -> "ModelConfig":
        """The model of a run that starts from another run: `theirs`, with `switches` that no parameter depends on. has_decoder: whether
        the other run trains a decoder. projectors: kinds of media for which it trains a projector. ValueError for a model of another
        kind."""
        if theirs.kind != self.kind:
            raise ValueError(f"it is a {theirs.kind}, and the config's is a {self.kind}")
        return dataclasses.replace(theirs, **switches)

    def with_layers(self, layers: tuple[int, ...]) -> Self:
        """The model with these of its layers alone, counted from 0. ValueError where it lacks one, shares them, or one would see less or
        more in its new place."""
        if layers[-1] >= self.num_layers:
            raise ValueError(f"start_layers: it has no layer {layers[-1]}, but layers 0 to {self.num_layers - 1}")
        if self.layer_groups:
            raise ValueError("start_layers: its layers share parameters, and none can be left out")
        shallower = dataclasses.replace(self, num_layers=len(layers))
        if any(self.layer_window(layer) != shallower.layer_window(place) for place, layer in enumerate(layers)):
            raise ValueError(f"start_layers: every {self.global_every}th of its layers sees everything, and has to do so in its new place")
        return shallower


@dataclasses.dataclass(frozen=True)
class OfStart(ModelConfig):
    """The model of the run that a run starts from, of whatever family; only its switches, such as dropout, are the config's."""

    home: ClassVar[str] = ""
    kind: ClassVar[str] = "any"

    context_length: int = 1 << 20
    """Tokens in a training row, at most; without learned positions, fewer than in the other run may be."""

    def started_from(self, theirs: ModelConfig, has_decoder: bool, projectors: Collection[str] = (), **switches) -> ModelConfig:
        shorter = min(switches.pop("context_length", self.context_length), theirs.context_length)
        return dataclasses.replace(theirs, context_length=theirs.context_length if theirs.positions == "learned" else shorter, **switches)

    def completed(self, size: int, specials: Mapping[str, int]) -> Self:
        raise ValueError("the config names no model of its own, and the run starts from none: give one with --start RUN_DIR")
