"""The shape of an encoder with a decoder that attends to it, as plain values."""

import dataclasses
from typing import ClassVar

from model.config import ModelConfig


@dataclasses.dataclass(frozen=True)
class EncoderDecoderConfig(ModelConfig):
    """A text is read both ways, another is written. T5 and the first Transformer (Vaswani et al. 2017) differ in these fields alone."""

    home: ClassVar[str] = "model.encoder_decoder:EncoderDecoder"
    kind: ClassVar[str] = "encoder-decoder"

    encoder_layers: int = 0
    """Blocks of the encoder. 0: as many as the decoder's num_layers."""
    start_token: int = 0
    """Id that stands before the first token of what is written."""
    scaled_logits: bool = False
    """Multiply hidden states by 1 / sqrt(embed_dim) before the output projection, as T5 does where that is the embedding table."""

    def __post_init__(self):
        super().__post_init__()
        for name in ("encoder_layers", "start_token"):
            if getattr(self, name) < 0:
                raise ValueError(f"model.{name} is {getattr(self, name)}; it must be 0 or more")
        if self.window:
            raise ValueError("model.window needs a causal model; an encoder sees both ways")
        if self.parallel:
            raise ValueError("model.parallel: a decoder that attends to an encoder runs its sub-layers one after the other")
        if self.positions == "distance":
            raise ValueError("model.positions distance needs a causal model; an encoder may have relative ones")
        if self.layer_groups and self.encoder_blocks % self.layer_groups:
            raise ValueError(f"model.layer_groups {self.layer_groups} does not divide model.encoder_layers {self.encoder_layers}")

    @property
    def encoder_blocks(self) -> int:
        return self.encoder_layers or self.num_layers

    @property
    def encoder(self) -> ModelConfig:
        """The encoder's stack."""
        return dataclasses.replace(self, num_layers=self.encoder_blocks, encoder_layers=0)
