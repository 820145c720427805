"""The shape of an encoder with a decoder that attends to it, as plain values."""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar, Self

from model.config import ModelConfig


@dataclasses.dataclass(frozen=True)
class EncoderDecoderConfig(ModelConfig):
    """An encoder-decoder. T5 and the original Transformer (Vaswani et al. 2017) differ only in these fields."""

    home: ClassVar[str] = "model.encoder_decoder:EncoderDecoder"
    kind: ClassVar[str] = "encoder-decoder"

    encoder_layers: int = 0
    """Blocks of the encoder. 0: as many as the decoder's num_layers."""
    start_token: int = -1
    """Id that starts the target. -1: the tokenizer's padding, as in T5, or its document start."""
    scaled_logits: bool = False
    """Multiply hidden states by 1 / sqrt(embed_dim) before the output projection, as T5 does with tied embeddings."""

    def __post_init__(self):
        super().__post_init__()
        if self.encoder_layers < 0:
            raise ValueError(f"model.encoder_layers is {self.encoder_layers}; it must be 0 or more")
        if self.start_token < -1 or self.start_token >= self.vocab_size > 0:
            raise ValueError(f"model.start_token is {self.start_token}; it must be an id below model.vocab_size {self.vocab_size}, or -1")
        if self.window:
            raise ValueError("model.window needs a causal model; an encoder sees both ways")
        if self.parallel:
            raise ValueError("model.parallel: a decoder that attends to an encoder runs its sub-layers one after the other")
        if self.ngrams:
            raise ValueError("model.ngrams are of a decoder by itself")
        if self.positions == "distance":
            raise ValueError("model.positions distance needs a causal model; an encoder may have relative ones")
        if self.layer_groups and self.encoder_blocks % self.layer_groups:
            raise ValueError(f"model.layer_groups {self.layer_groups} does not divide model.encoder_layers {self.encoder_layers}")

    def completed(self, size: int, specials: Mapping[str, int]) -> Self:
        """As for a decoder, and with a start_token."""
        found = super().completed(size, specials)
        if found.start_token >= 0:
            return found
        wanted = [specials[name] for name in ("padding", "start", "document_end") if name in specials]
        known = [token for token in wanted if token < found.vocab_size]
        if not known:
            raise ValueError(f"model.start_token is open, and no special id of the tokenizer is below model.vocab_size {found.vocab_size}")
        return dataclasses.replace(found, start_token=known[0])

    def with_layers(self, layers: tuple[int, ...]) -> Self:
        """The same layers of both stacks."""
        if self.encoder_blocks != self.num_layers:
            raise ValueError("start_layers: its encoder and its decoder differ in their number of layers")
        return dataclasses.replace(super().with_layers(layers), encoder_layers=0)

    @property
    def encoder_blocks(self) -> int:
        return self.encoder_layers or self.num_layers

    @property
    def encoder(self) -> ModelConfig:
        """The encoder's stack."""
        return dataclasses.replace(self, num_layers=self.encoder_blocks, encoder_layers=0)
