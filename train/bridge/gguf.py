"""A model in a GGUF file, as llama.cpp reads it. Tensors go by Hugging Face's names here; quantized ones are widened as they are read."""

import math
import os
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from data.errors import UserError
from model.convert.families import FAMILIES
from model.convert.family import Family, lost_settings
from train.bridge.gguf_tokenizer import CONTROL, gguf_tokenizer, tokenizer_json
from train.bridge.published import Leaving, Published, check_layers, config_of
from train.generation.chat import Chat

TYPES = ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q4_K", "Q5_K", "Q6_K")
"""That are read."""
DIVISORS = "rope_freqs.weight"
LLAMA3_CONTEXT = 8192
"""The original context of all of Llama 3.1 to 3.3, which a file does not hold."""
AT_ONCE = 1 << 20
"""Weights that are widened at once."""
NEEDS = "Install it: pip install 'omnia[hf]'."
FETCH = "Fetch the file again."

# Settings by llama.cpp's names, after the architecture's, and by Hugging Face's.
_SETTINGS = {
    "context_length": "max_position_embeddings",
    "block_count": "num_hidden_layers",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "attention.layer_norm_epsilon": "layer_norm_eps",
    "attention.sliding_window": "sliding_window",
    "attn_logit_softcapping": "attn_logit_softcapping",
    "final_logit_softcapping": "final_logit_softcapping",
    "rope.freq_base": "rope_theta",
    "use_parallel_residual": "use_parallel_residual",
}
_GPT2 = {
    "max_position_embeddings": "n_positions",
    "num_hidden_layers": "n_layer",
    "hidden_size": "n_embd",
    "intermediate_size": "n_inner",
    "num_attention_heads": "n_head",
    "layer_norm_eps": "layer_norm_epsilon",
}
_ROTATION = {
    "rope.dimension_count": None,
    "rope.freq_base": None,
    "rope.scaling.type": None,
    "rope.scaling.factor": None,
    "rope.scaling.original_context_length": None,
    "rope.scaling.finetuned": None,
    "rope.scale_linear": 1.0,
    "rope.scaling.attn_factor": 1.0,
    "rope.scaling.yarn_ext_factor": 1.0,
    "rope.scaling.yarn_attn_factor": 1.0,
    "rope.scaling.yarn_beta_fast": 32.0,
    "rope.scaling.yarn_beta_slow": 1.0,
    "rope.freq_base_swa": 10_000.0,
}
"""What a file can say of rotation: None where any value is read, else the only one that we have."""
_ROLES = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}


def open_gguf(path: Path) -> Published:
    """UserError for a file that is damaged, of an architecture that is not known, or with tensors that cannot be read."""
    try:
        from gguf import GGUFReader
    except ImportError:
        raise UserError("a .gguf file needs the package gguf", NEEDS) from None

    class Reader(GGUFReader):
        """Theirs takes what is left of a file for what it asked for, and reads a list of 2**60 numbers out of nothing."""

        def _get(self, offset, dtype, count=1, override_order=None):
            found = super()._get(offset, dtype, count, override_order)
            if len(found) < count:
                raise ValueError(f"it ends before byte {offset + int(count) * found.itemsize:,}")
            return found

    try:
        reader = Reader(path)
        metadata = {name: field.contents() for name, field in reader.fields.items()}
    except Exception as error:  # of a foreign library: a file that is cut short fails it anywhere
        raise UserError(f"{path}: damaged, cut short or no GGUF file ({type(error).__name__}: {error})", FETCH) from None
    where, architecture = str(path), metadata.get("general.architecture")
    family = next((one for one in FAMILIES if one.gguf == architecture), None)
    if family is None:
        raise UserError(
            f"{path}: the architecture {architecture!r} is not known", f"Known: {', '.join(one.gguf for one in FAMILIES if one.gguf)}."
        )
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    unread = [f"{name} is {tensor.tensor_type.name}" for name, tensor in tensors.items() if tensor.tensor_type.name not in TYPES]
    if unread:
        raise UserError(f"{path}: tensors of a type that is not read: {', '.join(unread)}", f"Known: {', '.join(TYPES)}.")
    try:
        settings = settings_of(family, metadata, tensors, where)
    except KeyError as missing:
        raise UserError(f"{path}: its settings lack {missing}", FETCH) from None
    except (ArithmeticError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path}: its settings make no model ({error})", FETCH) from None
    _, config = config_of(where, settings)
    check_layers(where, family, config, len(tensors))
    theirs = gguf_names(family, config, settings)
    ours = {theirs_name: name for name, theirs_name in theirs.items()}
    ordinary = {ours.get(name, name): tensor for name, tensor in tensors.items() if name != DIVISORS}
    shapes = {name: tuple(int(size) for size in reversed(tensor.shape)) for name, tensor in ordinary.items()}
    own = {name.removeprefix("tokenizer.ggml."): value for name, value in metadata.items() if name.startswith("tokenizer.ggml.")}
    try:
        tokenizer = tokenizer_json(own, where)
        chat = _chat_of(own, metadata.get("tokenizer.chat_template", ""))
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path}: its tokenizer is not whole ({error})", "Choose a file with a whole tokenizer.") from None
    return Published(where, family, settings, "gguf", shapes, lambda name: widened(ordinary[name]), tokenizer, chat)


def widened(tensor) -> np.ndarray:
    """float32, some rows at a time: what the library does to a whole tensor takes twice its memory."""
    from gguf.quants import dequantize

    shape = tuple(int(size) for size in reversed(tensor.shape))
    rows = tensor.data.reshape(-1, tensor.data.shape[-1])
    found = np.empty((len(rows), shape[-1]), np.float32)
    step = max(1, AT_ONCE // shape[-1])
    for first in range(0, len(rows), step):
        found[first : first + step] = dequantize(rows[first : first + step], tensor.tensor_type)
    return found.reshape(shape)


def gguf_names(family: Family, config, settings: Mapping[str, Any]) -> dict[str, str]:
    """llama.cpp's name of each tensor by Hugging Face's."""
    from gguf import MODEL_ARCH, MODEL_ARCH_NAMES, get_tensor_name_map

    architecture = next(one for one in MODEL_ARCH if MODEL_ARCH_NAMES[one] == family.gguf)
    names = get_tensor_name_map(architecture, config.num_layers)
    found = {}
    for name, _, _ in family.each(config, "gguf", settings):
        suffixes = (".weight", ".bias")
        theirs = names.get_name(name, suffixes) or names.get_name(name.removeprefix(family.prefix), suffixes)
        if theirs is None:
            raise ValueError(f"llama.cpp has no name for {name}")
        found[name] = theirs
    return found


def settings_of(family: Family, metadata: Mapping[str, Any], tensors: Mapping[str, Any], where: str) -> dict[str, Any]:
    """What config.json would say. UserError where the file leaves it out."""
    prefix = f"{family.gguf}."
    own = {name.removeprefix(prefix): value for name, value in metadata.items() if name.startswith(prefix)}
    settings: dict[str, Any] = {"model_type": family.model_types[0], "tie_word_embeddings": "output.weight" not in tensors}
    settings |= {theirs: own[name] for name, theirs in _SETTINGS.items() if name in own}
    settings |= {name: _decimal(value) for name, value in settings.items() if isinstance(value, float)}
    settings["vocab_size"] = len(metadata.get("tokenizer.ggml.tokens", ()))
    if "token_embd.weight" in tensors:
        settings["vocab_size"] = int(tensors["token_embd.weight"].shape[-1])
    if isinstance(settings.get("intermediate_size"), list) or isinstance(settings.get("num_attention_heads"), list):
        raise UserError(f"{where}: its layers differ in size", "This model cannot be run here; choose another.")
    rotation = {name: value for name, value in own.items() if name.startswith("rope.")}
    unread = [f"{name} {value}" for name, value in rotation.items() if _ROTATION.get(name, math.nan) not in (None, value)]
    if unread:
        raise UserError(f"{where}: a rotation that is not known here: {', '.join(unread)}", "Choose another model.")
    kind, factor = own.get("rope.scaling.type", "linear"), own.get("rope.scaling.factor", 0.0) or 1.0  # as llama.cpp takes them
    if kind not in ("none", "linear") or (kind == "linear" and factor != 1.0):
        scaling: dict[str, Any] = {"rope_type": kind, "factor": factor}
        if "rope.scaling.original_context_length" in own:
            scaling["original_max_position_embeddings"] = own["rope.scaling.original_context_length"]
        settings["rope_scaling"] = scaling
    if DIVISORS in tensors:
        settings["rope_scaling"] = _llama3(widened(tensors[DIVISORS]), settings, where)
    if "token_types.weight" in tensors:
        settings["type_vocab_size"] = int(tensors["token_types.weight"].shape[-1])
    width = settings.get("head_dim") or settings["hidden_size"] // settings["num_attention_heads"]
    if family.gguf != "gptneox" and own.get("rope.dimension_count", width) != width:
        raise UserError(f"{where}: heads of which a part is rotated", "This model cannot be run here; choose another.")
    if family.gguf.startswith("gemma"):  # which alone of all has another width by which scores are divided
        largest = {"gemma2": 46, "gemma3": 62}[family.gguf] == settings["num_hidden_layers"]
        of_heads = settings["hidden_size"] // settings["num_attention_heads"]
        settings["query_pre_attn_scalar"] = of_heads if largest else settings["head_dim"]
    if family.gguf == "gptneox":
        settings |= {"rotary_pct": own["rope.dimension_count"] / width, "rotary_emb_base": settings.pop("rope_theta", 10_000.0)}
    if family.gguf == "gpt2":
        settings = {_GPT2.get(name, name): value for name, value in settings.items()}
        settings["activation_function"] = "gelu_new"
    return settings


def _decimal(value: float) -> float:
    """The number that was meant, of a float32: 1e-05 instead of 9.999999747378752e-06."""
    return float(f"{value:.7g}")


def _llama3(divisors: np.ndarray, settings: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The scaling of Llama 3.1, of which a file holds only what it divides each frequency by."""
    factor, context = float(divisors.max()), LLAMA3_CONTEXT
    if not np.allclose(divisors, _llama3_divisors(settings.get("rope_theta", 10_000.0), factor, context, len(divisors)), rtol=1e-3):
        raise UserError(f"{where}: rotary frequencies that are not Llama 3.1's", "This model cannot be run here as it is meant to.")
    own = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": context}
    return {"rope_type": "llama3", "factor": factor, **own}


def _llama3_divisors(base: float, factor: float, context: int, count: int) -> np.ndarray:
    """By how much each pair turns more slowly (Llama 3.1; llama.cpp's convert_hf_to_gguf.py)."""
    wavelengths = 2 * np.pi * base ** (np.arange(count) / count)
    kept = np.clip((context / wavelengths - 1) / (4 - 1), 0, 1)
    return (1 / (kept + (1 - kept) / factor)).astype(np.float32)


def _divisors(config) -> np.ndarray | None:
    """What is written of Llama 3.1's scaling; None for a model that has none."""
    if config.rotary_scaling != "llama3":
        return None
    if config.rotary_original_context != LLAMA3_CONTEXT:
        raise UserError(f"llama.cpp has no word for an original context of {config.rotary_original_context}", "Export with --format hf.")
    return _llama3_divisors(config.rotary_base, config.rotary_factor, LLAMA3_CONTEXT, config.head_width // 2)


def _chat_of(tokenizer: Mapping[str, Any], template: str) -> Chat:
    tokens = tokenizer["tokens"]
    types = tokenizer.get("token_type") or []
    ids = {role: tokenizer[f"{name}_token_id"] for role, name in _ROLES.items() if f"{name}_token_id" in tokenizer}
    stops = [tokenizer[name] for name in ("eos_token_id", "eot_token_id", "eom_token_id") if name in tokenizer]
    begins = tokenizer.get("add_bos_token", tokenizer.get("model") == "llama" or tokenizer.get("pre") == "llama-bpe")
    return Chat(
        template,
        {role: tokens[i] for role, i in ids.items()},
        {token: i for i, (token, kind) in enumerate(zip(tokens, types, strict=False)) if kind == CONTROL},
        (ids["bos_token"],) if begins and "bos_token" in ids else (),
        tuple(dict.fromkeys(stops)),
    )


# --------------------------------------------------------------------------------------------------------------- the reverse


def write_gguf(path: Path, leaving: Leaving, kind: str) -> None:
    """The whole model in one file. Matrices are of the type `kind`, norms and biases float32."""
    try:
        from gguf import GGMLQuantizationType, GGUFWriter
        from gguf.quants import quantize
    except ImportError:
        raise UserError("a .gguf file needs the package gguf", NEEDS) from None
    family = leaving.family
    if not family.gguf:
        raise UserError(f"llama.cpp has no {family.model_types[0]}, or not as it is here", "Export with --format hf.")
    names, asked = gguf_names(family, leaving.config, leaving.settings), GGMLQuantizationType[kind.upper()]
    metadata, divisors = _metadata(leaving), _divisors(leaving.config)
    settings = _read_back(leaving, metadata, names, divisors)
    sizes = family.sizes(leaving.config)
    writer = GGUFWriter(path, family.gguf)
    for name, value in metadata.items():
        _add(writer, name, value)

    def type_of(shape: tuple[int, ...]):
        fits = len(shape) > 1 and (asked != GGMLQuantizationType.Q8_0 or shape[-1] % 32 == 0)
        return asked if fits else GGMLQuantizationType.F32

    def stored(shape: tuple[int, ...]) -> tuple[tuple[int, ...], Any]:
        """Shape and type of the array that is written."""
        of = type_of(shape)
        if of == GGMLQuantizationType.Q8_0:
            return (*shape[:-1], shape[-1] // 32 * 34), np.dtype(np.uint8)
        return (*shape[:-1], shape[-1] * 2) if of == GGMLQuantizationType.BF16 else shape, {
            GGMLQuantizationType.BF16: np.dtype(np.uint8),
            GGMLQuantizationType.F16: np.dtype(np.float16),
        }.get(of, np.dtype(np.float32))

    for name, tensor, _ in family.each(leaving.config, "gguf", settings):
        shape = tensor.shape(sizes)
        inside, dtype = stored(shape)
        writer.add_tensor_info(names[name], inside, dtype, math.prod(inside) * dtype.itemsize, raw_dtype=type_of(shape))
    if divisors is not None:
        writer.add_tensor_info(DIVISORS, divisors.shape, divisors.dtype, divisors.nbytes)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for _, array in leaving.tensors("gguf", settings):
        writer.write_tensor_data(quantize(array, type_of(array.shape)))
    if divisors is not None:
        writer.write_tensor_data(divisors)
    writer.close()
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _read_back(leaving: Leaving, metadata: Mapping[str, Any], names: Mapping[str, str], divisors: np.ndarray | None) -> dict[str, Any]:
    """The settings that readers will find, in config.json's words. UserError that names all of ours that the file cannot say."""
    from gguf import GGMLQuantizationType

    family, config = leaving.family, leaving.config
    sizes = family.sizes(config)
    shapes = {names[name]: tensor.shape(sizes) for name, tensor, _ in family.each(config, "gguf", leaving.settings)}
    tensors = {name: SimpleNamespace(shape=tuple(reversed(shape))) for name, shape in shapes.items()}
    if divisors is not None:
        tensors[DIVISORS] = SimpleNamespace(shape=divisors.shape, data=divisors, tensor_type=GGMLQuantizationType.F32)
    settings = settings_of(family, metadata, tensors, "the file")
    lost = lost_settings(family, config, family.config_of(settings))
    if family.gguf == "llama" and config.window:  # whose key llama.cpp does not read for this architecture
        lost.append(f"window {config.window}")
    if lost:
        raise UserError(f"llama.cpp's {family.gguf} has no word for {', '.join(lost)}", "Export with --format hf.")
    return settings


def _add(writer, name: str, value: Any) -> None:
    from gguf import GGUFValueType

    if isinstance(value, list):
        writer.add_array(name, value)
        return
    kinds = {bool: GGUFValueType.BOOL, int: GGUFValueType.UINT32, float: GGUFValueType.FLOAT32, str: GGUFValueType.STRING}
    writer.add_key_value(name, value, kinds[type(value)])


def _metadata(leaving: Leaving) -> dict[str, Any]:
    """Everything beside the tensors, by llama.cpp's names."""
    config, chat = leaving.config, leaving.chat
    theirs = {theirs: name for name, theirs in _SETTINGS.items()}
    if leaving.family.gguf == "gpt2":
        theirs |= {_GPT2[common]: name for common, name in theirs.items() if common in _GPT2}
    found = {theirs[name]: value for name, value in leaving.settings.items() if name in theirs and value is not None}
    found["vocab_size"] = config.vocab_size
    if not config.generates:
        from gguf import PoolingType

        found |= {"attention.causal": False, "pooling_type": int(PoolingType.MEAN)}
    if config.positions == "rotary":
        found["rope.dimension_count"] = int(config.head_width * getattr(config, "rotary_share", 1.0))
        found["attention.value_length"] = config.head_width
    if config.rotary_scaling not in ("none", "llama3"):
        found |= {"rope.scaling.type": config.rotary_scaling, "rope.scaling.factor": config.rotary_factor}
        if config.rotary_original_context:
            found["rope.scaling.original_context_length"] = config.rotary_original_context
    whole = {f"{leaving.family.gguf}.{name}": value for name, value in found.items()}
    if not leaving.tokenizer:
        return whole | {"tokenizer.ggml.model": "none"}
    tokenizer = gguf_tokenizer(leaving.tokenizer, config.vocab_size)
    for role, name in _ROLES.items():
        if chat.tokens.get(role) in chat.specials:
            tokenizer[f"{name}_token_id"] = chat.specials[chat.tokens[role]]
    if config.generates:
        tokenizer["add_bos_token"] = bool(chat.start_ids)
    else:
        tokenizer["token_type_count"] = config.token_types
    whole |= {f"tokenizer.ggml.{name}": value for name, value in tokenizer.items()}
    return whole | ({"tokenizer.chat_template": chat.template} if chat.template else {})
