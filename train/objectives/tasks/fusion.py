"""Late fusion: the vector of a text joined with numbers that stand beside it, such as values of a table or an image's, before a head."""

import dataclasses
import math
import zlib

import jax
import jax.numpy as jnp

from train.objectives.tasks.heads import projection

TEXT = "text"
"""The source whose vector is the encoder's."""
ENCODERS = "encoders"
"""Parameters of a head by which numbers are encoded."""
_SOURCES = 1 << 22
"""Folded into the keys of dropout for which sources are left out, apart from the head's and those of the layers."""


@dataclasses.dataclass(frozen=True)
class Fusion:
    """sources: of each, its name and how many numbers it has; the text has none of its own. dropout: probability with which a source is
    left out in training. hidden: units by which a source's numbers are encoded, beside the numbers themselves; 0: none. columns: what the
    numbers stand for, so that no run takes over a head for others.

    What stands beside a text holds, for each source in turn, 1 if it is there, and its numbers. A source that is missing, or left out, is
    zeros and a mark. Sources weigh alike, however many numbers they have: each is scaled to the length of a hidden state.
    Parameters, beside those of the head: encoders/NAME, for sources with numbers, if `hidden`.
    """

    sources: tuple[tuple[str, int], ...]
    dropout: float = 0.0
    hidden: int = 0
    columns: str = ""

    @property
    def numbers(self) -> int:
        """K, of what stands beside a text."""
        return sum(1 + width for _, width in self.sources)

    @property
    def reads_text(self) -> bool:
        return any(name == TEXT for name, _ in self.sources)

    @property
    def name(self) -> str:
        encoded = f" encoded by {self.hidden}" if self.hidden else ""
        columns = f" of columns {zlib.crc32(self.columns.encode()):08x}" if self.columns else ""
        return "sources " + ", ".join(f"{name} of {width}" if width else name for name, width in self.sources) + columns + encoded

    def width(self, embed: int) -> int:
        """Of the joined vector."""
        return sum(1 + (embed if name == TEXT else width + self.hidden) for name, width in self.sources)

    def start(self, key, std: float):
        """Fresh parameters of the encoders, boxed."""
        if not self.hidden:
            return {}
        made = {
            name: projection(self.hidden, std).init(jax.random.fold_in(key, place), jnp.zeros((1, width)))["params"]
            for place, (name, width) in enumerate(self.sources)
            if width
        }
        return {ENCODERS: made}

    def text_alone(self, shape: tuple[int, ...]):
        """What stands beside texts [B, S] that have nothing beside them."""
        return jnp.zeros((*shape, self.numbers), jnp.float32).at[..., self._marks()[TEXT]].set(1.0)

    def _marks(self) -> dict[str, int]:
        """Where each source begins, with its mark."""
        places, place = {}, 0
        for name, width in self.sources:
            places[name], place = place, place + 1 + width
        return places

    def join(self, params, text_BSD, beside_BSK, keys_B, embed: int):
        """float32 [B, S, width(embed)]. text_BSD: None where no text is read. keys_B: of dropout, None for none."""
        marks = self._marks()
        there_BSM = jnp.stack([beside_BSK[..., place] for place in marks.values()], -1) > 0
        if keys_B is not None and self.dropout:
            there_BSM = self._kept(there_BSM, keys_B)
        parts = []
        for number, (name, width) in enumerate(self.sources):
            there_BS1 = there_BSM[..., number, None]
            if name == TEXT:
                x_BSW = text_BSD.astype(jnp.float32)
                x_BSW = x_BSW * jax.lax.rsqrt(jnp.square(x_BSW).mean(-1, keepdims=True) + 1e-6)
                scale = 1.0
            else:
                x_BSW = beside_BSK[..., marks[name] + 1 : marks[name] + 1 + width]
                scale = math.sqrt(embed / max(width, 1))
                if self.hidden:
                    own = projection(self.hidden, 0.0).apply({"params": params[ENCODERS][name]}, x_BSW * scale)
                    x_BSW = jnp.concatenate([x_BSW, jax.nn.gelu(own)], -1)
            parts += [jnp.where(there_BS1, x_BSW, 0) * scale, jnp.where(there_BS1, 0, scale)]
        return jnp.concatenate(parts, -1)

    def _kept(self, there_BSM, keys_B):
        """Which sources stay, each by chance, but all where none would."""
        keep = 1.0 - self.dropout
        drawn_BSM = jax.vmap(lambda key: jax.random.bernoulli(jax.random.fold_in(key, _SOURCES), keep, there_BSM.shape[1:]))(keys_B)
        kept_BSM = there_BSM & drawn_BSM
        return jnp.where(kept_BSM.any(-1, keepdims=True), kept_BSM, there_BSM)
