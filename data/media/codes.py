"""Codes of pictures, clips and recordings as ids of a vocabulary, so that a decoder that predicts ids also writes media.

A codebook (model/media/vq.py) maps each patch, tubelet or frame to one of K codes. Code c of a kind is the id `first` + c of the tokenizer
that holds the codebook. Here is the codebook in NumPy, so that processes that make rows need no device; model/media/vq.py is its reference.
"""

import dataclasses
import io
from typing import Any

import numpy as np

from data.errors import UserError
from data.media.kinds import Kind
from data.media.signals.patches import grid
from data.media.signals.products import product
from data.media.signals.shapes import AudioShape, Cut, ImageShape, Shape, VideoShape

_SHAPES: dict[str, type[Shape]] = {"image": ImageShape, "video": VideoShape, "audio": AudioShape}


@dataclasses.dataclass(frozen=True, eq=False)
class MediaCodes:
    """The codebook of a kind of media.

    shape: of the media that it codes. weights: float32 arrays under the names of VectorQuantiser's parameters, joined by slashes.
    first: id of its first code.
    """

    shape: Shape
    weights: dict[str, np.ndarray]
    first: int

    @property
    def kind(self) -> Kind:
        return self.shape.kind

    @property
    def size(self) -> int:
        """Codes."""
        return len(self.weights["codebook"])

    @property
    def ids(self) -> tuple[int, int]:
        """The first id, and the one after the last."""
        return self.first, self.first + self.size

    def encode(self, cut: Cut) -> np.ndarray:
        """int32 [N]: the ids of the patches."""
        values = cut.patches.astype(np.float32) / 127.5 - 1.0 if cut.patches.dtype == np.uint8 else cut.patches
        latents, codebook = self._perceptron("encoder", values), self.weights["codebook"]
        codes = np.argmin(np.square(codebook).sum(-1) - 2.0 * product(latents, codebook.T), axis=-1)
        return (self.first + codes).astype(np.int32)

    def decode(self, ids: np.ndarray) -> Cut:
        """The medium that ids stand for. ValueError for ids that are no codes of the kind, or a count that no medium has."""
        codes = np.asarray(ids) - self.first
        if codes.size == 0 or codes.min() < 0 or codes.max() >= self.size:
            raise ValueError(f"ids that are no codes of {self.kind}")
        places = self._places(len(codes))
        values = self._perceptron("decoder", self.weights["codebook"][codes])
        if self.kind == "audio":
            return Cut(values, places)
        return Cut(np.clip(np.rint((values + 1.0) * 127.5), 0, 255).astype(np.uint8), places)

    @property
    def most(self) -> int:
        """Ids of the largest medium; all pictures have that many."""
        return self.shape.most

    def _places(self, count: int) -> np.ndarray:
        if self.kind == "audio":
            return np.arange(count, dtype=np.int32)[:, None]
        *times, rows, columns = self.shape.largest
        each = grid(rows, columns)
        if count % len(each) or count > self.most or (not times and count != self.most):
            raise ValueError(f"{count} codes are no {self.kind} of {' x '.join(map(str, self.shape.largest))}")
        if not times:
            return each
        when = np.repeat(np.arange(count // len(each), dtype=np.int32), len(each))[:, None]
        return np.concatenate([when, np.tile(each, (count // len(each), 1))], -1)

    def _perceptron(self, name: str, x: np.ndarray) -> np.ndarray:
        from scipy.special import erf  # which takes a while to import, and text needs none of it

        for layer in ("first", "second", "out"):
            x = product(x, self.weights[f"{name}/{layer}/kernel"]) + self.weights[f"{name}/{layer}/bias"]
            if layer != "out":
                x = 0.5 * x * (1.0 + erf(x * np.float32(0.5**0.5)))
        return x

    # ------------------------------------------------------------------------------------------------------------------ files

    def header(self) -> dict[str, Any]:
        return {"first": self.first, "shape": dataclasses.asdict(self.shape)}

    def content(self) -> bytes:
        """The weights as an .npz archive."""
        buffer = io.BytesIO()
        weights: dict[str, Any] = self.weights
        np.savez(buffer, **weights)
        return buffer.getvalue()


def read_codes(kind: str, header: dict[str, Any], content: bytes) -> MediaCodes:
    """The codes that a header and an archive hold. Raises ValueError, KeyError or TypeError for others."""
    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        weights = {name: archive[name].astype(np.float32) for name in archive.files}
    shape = _SHAPES[kind](**header["shape"])
    codes = MediaCodes(shape, weights, int(header["first"]))
    width = weights["codebook"].shape[1]
    for name, inputs, outputs in (("encoder", shape.values, width), ("decoder", width, shape.values)):
        if (weights[f"{name}/first/kernel"].shape[0], weights[f"{name}/out/kernel"].shape[1]) != (inputs, outputs):
            raise ValueError(f"a {name} that is not of {inputs} values to {outputs}")
    return codes


def codes_for(codes: dict[Kind, MediaCodes], kind: Kind) -> MediaCodes:
    """Those of a kind. UserError where a tokenizer has none."""
    if kind not in codes:
        raise UserError(
            f"the tokenizer has no codes for {kind}, which is to be written",
            "Train a Codebook, then `omnia prepare codes --runs RUN --output DIR`, and give that: --data.tokenizer DIR.",
        )
    return codes[kind]
