"""The shape of an encoder of text, as plain values."""

import dataclasses
from collections.abc import Collection
from typing import ClassVar

from model.config import ModelConfig


@dataclasses.dataclass(frozen=True)
class TextEncoderConfig(ModelConfig):
    """A bidirectional Transformer encoder. BERT, RoBERTa, DistilBERT and ALBERT differ only in these fields."""

    home: ClassVar[str] = "model.text_encoder:TextEncoder"
    kind: ClassVar[str] = "encoder"
    generates: ClassVar[bool] = False

    token_types: int = 2
    """Kinds of tokens told apart by an embedding, such as the two sides of a pair. 0: none."""
    embedding_dim: int = 0
    """Width of the embedding tables, projected to embed_dim (ALBERT, Lan et al. 2020, sec. 3.1). 0: embed_dim, and no projection."""
    pooler: bool = True
    """A dense layer and tanh over a text's first hidden state (Devlin et al. 2019): what judges whole texts."""
    prediction_head: bool = True
    """A dense layer and a norm before the output projection, which has a bias (the same): what predicts masked tokens."""

    def __post_init__(self):
        super().__post_init__()
        for name in ("token_types", "embedding_dim"):
            if getattr(self, name) < 0:
                raise ValueError(f"model.{name} is {getattr(self, name)}; it must be positive, or 0 to do without")
        if self.window:
            raise ValueError("model.window needs a causal model; an encoder sees both ways")
        if self.ngrams:
            raise ValueError("model.ngrams are of a decoder; an encoder sees both ways")
        if self.positions == "distance":
            raise ValueError("model.positions distance needs a causal model; an encoder may have relative ones")
        if not self.tied_embeddings:
            raise ValueError("model.tied_embeddings: an encoder predicts by its embedding table; leave it on")

    def started_from(self, theirs: ModelConfig, has_decoder: bool, projectors: Collection[str] = (), **switches) -> ModelConfig:
        """The pooler and the prediction head are the new run's own; if the other run lacks one, it is initialised."""
        heads = {"pooler": self.pooler, "prediction_head": self.prediction_head} if theirs.kind == self.kind else {}
        return super().started_from(theirs, has_decoder, projectors, **switches, **heads)

    @property
    def embedding_width(self) -> int:
        return self.embedding_dim or self.embed_dim
