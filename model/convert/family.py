"""What a family of published models is to us: a table of its tensors, read in both directions, and its settings.

Axes are named by a letter each: d width of the residual (z is d again), h query heads, g key and value heads, k width of a head, f width of
the feed-forward layer, v vocabulary, e width of the embedding, p learned positions, y types of tokens, b buckets of distances. t is 2, the
halves of a head that rotate together, and j their width; c is as many as a tensor has parts. l counts layers, m those of an encoder beside.
Of encoders of media: q and w rows and columns of a patch, a values of a pixel or frame, n frames under a convolution, s classes, e width of
the shared space; where there are two towers, those of the one that reads media are capital letters.
"""

import dataclasses
import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from model.config import SWITCHES, ModelConfig

Layout = Literal["hf", "gguf"]
"""Hugging Face's or llama.cpp's: both go by Hugging Face's names here, but some tensors have another shape or order in a GGUF file."""


@dataclasses.dataclass(frozen=True)
class Tensor:
    """One tensor of theirs, and what it is here: ours = theirs * scale + offset, with its axes rearranged.

    name: theirs; `{layer}` stands for the number of each layer. ours: the path of our parameter, or of several that theirs holds side by
    side. axes: theirs -> ours, such as "(h k) d -> d h k"; with several of ours the first axis on the right counts them. skip: rows at the
    beginning of theirs that have no place here, and come back as zeros. layers: the letter whose size is the number of layers. What has a
    layer in its name is stacked over layers here.
    """

    name: str
    ours: str | tuple[str, ...]
    axes: str
    scale: float = 1.0
    offset: float = 0.0
    skip: int = 0
    layers: str = "l"

    @property
    def paths(self) -> tuple[str, ...]:
        return (self.ours,) if isinstance(self.ours, str) else self.ours

    def shape(self, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """Of theirs."""
        shape = _shape(sides(self.axes)[0], self._with_parts(sizes))
        return (shape[0] + self.skip, *shape[1:]) if self.skip else shape

    def to_ours(self, theirs: np.ndarray, sizes: Mapping[str, int]) -> list[np.ndarray]:
        """An array for each of `paths`, of one layer; views of theirs where nothing is computed. ValueError for another shape."""
        left, right = sides(self.axes)
        ours = _rearranged(theirs[self.skip :] if self.skip else theirs, left, right, self._with_parts(sizes))
        if self.scale != 1.0 or self.offset:
            ours = ours * np.float32(self.scale) + np.float32(self.offset)
        return [ours] if isinstance(self.ours, str) else list(ours)

    def to_theirs(self, ours: Sequence[np.ndarray], sizes: Mapping[str, int]) -> np.ndarray:
        """The reverse of `to_ours`."""
        left, right = sides(self.axes)
        whole = ours[0] if isinstance(self.ours, str) else np.stack(ours)
        if self.scale != 1.0 or self.offset:
            whole = (whole - np.float32(self.offset)) / np.float32(self.scale)
        theirs = np.asarray(_rearranged(whole, right, left, self._with_parts(sizes)), order="C")
        return np.concatenate([np.zeros((self.skip, *theirs.shape[1:]), theirs.dtype), theirs]) if self.skip else theirs

    def _with_parts(self, sizes: Mapping[str, int]) -> dict[str, int]:
        return {**sizes, "t": 2, "c": len(self.paths)}


Groups = list[list[str]]


def sides(axes: str) -> tuple[Groups, Groups]:
    """The axes on both sides of the arrow, each a group of one or more letters."""
    left, right = ([part.strip("()").split() for part in re.findall(r"\([^)]*\)|\w+", side)] for side in axes.split("->"))
    return left, right


def _shape(groups: Groups, sizes: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(math.prod(_size(axis, sizes) for axis in group) for group in groups)


def _size(axis: str, sizes: Mapping[str, int]) -> int:
    return sizes["k"] // 2 if axis == "j" else sizes["d"] if axis == "z" else sizes[axis]


def _rearranged(array: np.ndarray, source: Groups, target: Groups, sizes: Mapping[str, int]) -> np.ndarray:
    before, after = ([axis for group in groups for axis in group] for groups in (source, target))
    apart = array.reshape([_size(axis, sizes) for axis in before])
    return apart.transpose([before.index(axis) for axis in after]).reshape(_shape(target, sizes))


def text_sizes(config: ModelConfig) -> dict[str, int]:
    """What the letters of `axes` stand for in a model of texts."""
    return {
        "d": config.embed_dim,
        "h": config.num_heads,
        "g": config.kv_heads,
        "k": config.head_width,
        "f": config.mlp_width,
        "v": config.vocab_size,
        "p": config.context_length,
        "l": config.own_layers,
        "m": config.encoder.own_layers if hasattr(config, "encoder") else 0,
        "b": config.relative_buckets,
        "e": getattr(config, "embedding_width", config.embed_dim),
        "y": getattr(config, "token_types", 0),
    }


@dataclasses.dataclass(frozen=True)
class Family:
    """Published models of one kind.

    model_types: their names in config.json. architecture: of the class in Hugging Face's library. gguf: llama.cpp's name, "" for none.
    config_of: config.json -> our config; ValueError for a setting that cannot be honoured, KeyError for one that is missing.
    theirs: our config -> config.json; it need not look at what it cannot say, `attempted` does.
    tensors: our config, a layout, config.json -> all tensors. prefix: that a file of the bare trunk leaves out of every name.
    spare: a regular expression of names that a file may hold beside them, which are copies, or of no use here.
    found: names of a file's tensors -> fields of our config that the file decides by what it holds, and no setting says.
    sizes: our config -> what the letters of `axes` stand for.
    zeros: our config -> paths of parameters that are zero, or change nothing, in all of these models, and that no file holds.
    """

    model_types: tuple[str, ...]
    architecture: str
    config_of: Callable[[Mapping[str, Any]], Any]
    theirs: Callable[[Any], dict[str, Any]]
    tensors: Callable[[Any, Layout, Mapping[str, Any]], Sequence[Tensor]]
    prefix: str = ""
    gguf: str = ""
    spare: str = ""
    found: Callable[[Collection[str]], dict[str, Any]] = lambda names: {}
    sizes: Callable[[Any], dict[str, int]] = text_sizes
    zeros: Callable[[Any], Collection[str]] = lambda config: ()

    def each(self, config, layout: Layout, settings: Mapping[str, Any]) -> Iterator[tuple[str, Tensor, int | None]]:
        """(their name, the tensor, the layer or None) of everything that a model has."""
        for tensor in self.tensors(config, layout, settings):
            if "{layer}" not in tensor.name:
                yield tensor.name, tensor, None
                continue
            for layer in range(self.sizes(config)[tensor.layers]):
                yield tensor.name.format(layer=layer), tensor, layer

    def fill(self, params: Mapping[str, np.ndarray], config, layout: Layout, settings: Mapping[str, Any], read) -> None:
        """Fill our arrays, by their paths, from `read(their name)`, one tensor after the other. ValueError where the table does not fit."""
        sizes, filled = self.sizes(config), set(self.zeros(config))
        for path in filled:
            params[path][...] = 0
        for name, tensor, layer in self.each(config, layout, settings):
            for path, part in zip(tensor.paths, tensor.to_ours(read(name), sizes), strict=True):
                target = params[path] if layer is None else params[path][layer]
                if target.shape != part.shape:
                    raise ValueError(f"{name} is {part.shape} here, but {path} {target.shape}")
                target[...] = part
                filled.add(path)
        if filled != set(params):
            raise ValueError(f"the table of {self.model_types[0]} gives no {', '.join(sorted(set(params) - filled))}")

    def unfilled(self, params: Mapping[str, Any], config, layout: Layout, settings: Mapping[str, Any]) -> Iterator[tuple[str, np.ndarray]]:
        """(their name, the tensor) from our arrays, by their paths: the reverse of `fill`."""
        for name, tensor, layer in self.each(config, layout, settings):
            ours = [np.asarray(params[path]) for path in tensor.paths]
            yield name, tensor.to_theirs(ours if layer is None else [leaf[layer] for leaf in ours], self.sizes(config))


HARMLESS = re.compile(
    r"(^|\.)(attn\.(masked_)?bias|attention\.(masked_)?bias|rotary_emb\.(inv_freq|cos_cached|sin_cached)|position_ids|token_type_ids)$"
)
"""Tensors that some files hold and no model needs: masks and tables that are computed."""

UNSAID = (*SWITCHES, "init_std")
"""Fields of our config that say how a model is run or trained, and that no config.json needs to hold."""


def attempted(family: Family, config) -> tuple[dict[str, Any], list[str]] | None:
    """config.json for a config of ours, and the settings that the family has no word for; None where it is of another kind altogether."""
    try:
        theirs = family.theirs(config)
        back = family.config_of(theirs)
    except (ValueError, KeyError, AttributeError):
        return None
    same = theirs["model_type"] in family.model_types and type(back) is type(config)
    return (theirs, lost_settings(family, config, back)) if same else None


def lost_settings(family: Family, config, back) -> list[str]:
    """ "name value" of each of our settings that is another one when it is read back; what a file's tensors say is not lost."""
    back = dataclasses.replace(back, **{name: getattr(config, name) for name in family.found(())})
    ours, theirs = _explicit(config), _explicit(back)
    return [f"{name} {value!r}" for name, value in ours.items() if not _equal(value, theirs[name])]


def _equal(one, other) -> bool:
    """Of numbers as float32 holds them."""
    return math.isclose(one, other, rel_tol=1e-6) if isinstance(one, float) and isinstance(other, float) else one == other


def _explicit(config) -> dict[str, Any]:
    """Every field that decides what a model computes, with the defaults that follow from others filled in."""
    fields = {name: value for name, value in vars(config).items() if name not in UNSAID}
    derived = {"num_kv_heads": "kv_heads", "head_dim": "head_width", "mlp_dim": "mlp_width"}
    derived |= {"encoder_layers": "encoder_blocks", "embedding_dim": "embedding_width"}
    return fields | {name: getattr(config, source) for name, source in derived.items() if hasattr(config, source)}


# ----------------------------------------------------------------------------------------------------------------- settings


def require(theirs: Mapping[str, Any], **usual: Any) -> None:
    """ValueError unless each setting is absent, or as it usually is: of what our model has no other way."""
    for name, value in usual.items():
        if theirs.get(name) not in (None, value):
            raise ValueError(f"{name} is {theirs[name]!r}, and only {value!r} can be read")


def require_layers(theirs: Mapping[str, Any], kind_of: Callable[[int], str]) -> None:
    """ValueError unless `layer_types`, which newer files have, is absent or says this of each layer."""
    found = theirs.get("layer_types")
    if found and (len(found) != theirs["num_hidden_layers"] or any(kind_of(layer) != kind for layer, kind in enumerate(found))):
        raise ValueError(f"layer_types has another order than these models have: {found}")


def one_of(theirs: Mapping[str, Any], name: str, known: Mapping[str, Any], default: Any = None) -> Any:
    """Our word for theirs; ValueError for one that is unknown."""
    found = theirs.get(name) or default
    if found not in known:
        raise ValueError(f"{name} is {found!r}; known: {', '.join(map(str, known))}")
    return known[found]


ACTIVATIONS: dict[str, Any] = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "relu": "relu",
    "relu2": "relu_squared",
    "quick_gelu": "quick_gelu",
}
"""Theirs -> ours."""


def their_activation(ours: str, *, among: Sequence[str] = tuple(ACTIVATIONS)) -> str:
    return next(name for name in among if ACTIVATIONS[name] == ours)


def rotary_settings(theirs: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of ModelConfig from `rope_theta` and `rope_scaling`, or from `rope_parameters`, which newer files have for both."""
    scaling = dict(theirs.get("rope_scaling") or theirs.get("rope_parameters") or {})
    scaling = dict(scaling.get("full_attention", scaling))
    fields: dict[str, Any] = {"rotary_base": float(scaling.pop("rope_theta", theirs.get("rope_theta") or 10_000.0))}
    kind = scaling.pop("rope_type", scaling.pop("type", "default"))
    scaling.pop("type", None)
    if scaling.pop("partial_rotary_factor", 1.0) != 1.0:
        raise ValueError("heads of which a part is rotated cannot be read")
    if kind == "default":
        return fields
    own: dict[str, Any] = {
        "linear": {},
        "llama3": {"low_freq_factor": 1.0, "high_freq_factor": 4.0},
        "yarn": {"beta_fast": 32, "beta_slow": 1, "attention_factor": None, "truncate": True},
    }
    if kind not in own:
        raise ValueError(f"rope_scaling is of the type {kind!r}; known: {', '.join(own)}")
    fields |= {"rotary_scaling": kind, "rotary_factor": float(scaling.pop("factor"))}
    if kind != "linear":
        context = scaling.pop("original_max_position_embeddings", None) or theirs["max_position_embeddings"]
        fields["rotary_original_context"] = int(context)
    scaling.pop("original_max_position_embeddings", None)
    for name, value in scaling.items():
        if name not in own[kind] or (value is not None and value != own[kind][name]):
            raise ValueError(f"rope_scaling has {name} {value!r}, which cannot be honoured")
    return fields


def their_rotary_settings(config: ModelConfig) -> dict[str, Any]:
    """The reverse of `rotary_settings`, in the words that older and newer versions of Hugging Face's library read."""
    fields: dict[str, Any] = {"rope_theta": config.rotary_base}
    if config.rotary_scaling == "none":
        return fields
    scaling: dict[str, Any] = {"rope_type": config.rotary_scaling, "factor": config.rotary_factor}
    if config.rotary_scaling != "linear":
        scaling["original_max_position_embeddings"] = config.rotary_original_context
    if config.rotary_scaling == "llama3":
        scaling |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
    return fields | {"rope_scaling": scaling}
