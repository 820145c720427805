"""A model in a folder, as Hugging Face lays it out. Weights are read from safetensors alone: a pickle could run code."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from data.errors import UserError
from data.files import json_files
from train.bridge.published import Published, config_of
from train.bridge.task_heads import arriving_head
from train.generation.chat import Chat

CONVERT = (
    "Convert it where you trust it: python -c \"from transformers import AutoModel; AutoModel.from_pretrained('FOLDER')"
    ".save_pretrained('NEW')\"."
)
FETCH = "Fetch the files again."
TYPES = ("F64", "F32", "F16", "BF16", "I64", "I32", "U8", "BOOL")
"""That are read, of safetensors; whole numbers occur in buffers that no model needs."""
POOLS = {"pooling_mode_cls_token": "first", "pooling_mode_mean_tokens": "mean", "pooling_mode_lasttoken": "last"}
"""How Sentence Transformers calls what `omnia embed` does."""
LENGTH = "sentence_bert_config.json"
DEFAULTS = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")
"""Of generation_config.json."""


def open_folder(folder: Path) -> Published:
    """UserError for what is missing, damaged, or cannot be honoured."""
    settings = json_files.read(folder / "config.json", FETCH) if (folder / "config.json").is_file() else None
    if settings is None:
        raise UserError(f"{folder}: no config.json", "Give a folder with config.json, model.safetensors and tokenizer.json.")
    if (folder / "preprocessor_config.json").is_file():
        pixels = json_files.read(folder / "preprocessor_config.json", FETCH)
        settings = {name: pixels[name] for name in ("image_mean", "image_std") if name in pixels} | settings
    family, _ = config_of(f"{folder}/config.json", settings)
    try:
        arriving = arriving_head(family, settings)
    except (ArithmeticError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{folder}/config.json: {error}", "This model cannot be run here as it is meant to; choose another.") from None
    family, task = (arriving[0], arriving[1:]) if arriving else (family, None)
    shapes, read = _tensors(folder)
    tokenizer = _bytes(folder / "tokenizer.json")
    try:
        chat = chat_of(folder, settings, tokenizer) if tokenizer else Chat()
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{folder}: what it says of its tokens or chat template is not whole ({error!r})", FETCH) from None
    return Published(str(folder), family, settings, "hf", shapes, read, tokenizer, chat, task)


def _bytes(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b""


def _tensors(folder: Path) -> tuple[dict[str, tuple[int, ...]], Callable[[str], np.ndarray]]:
    """The shapes of all tensors, and what reads one."""
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError:
        raise UserError("reading published weights needs the package safetensors", "Install it: pip install 'omnia[hf]'.") from None
    files: dict[str, Any] = {}
    home: dict[str, tuple[str, str]] = {}
    for name in _weight_files(folder):
        try:
            files[name] = safe_open(folder / name, framework="numpy")
        except FileNotFoundError:
            raise UserError(f"{folder}: {name} is missing", FETCH) from None
        except SafetensorError as error:
            raise UserError(f"{folder / name}: damaged or cut short ({error})", FETCH) from None
        for tensor in files[name].keys():  # noqa: SIM118 (it is no dictionary)
            home[_newer(tensor)] = name, tensor
    shapes = {}
    unread = []
    for name, (file, tensor) in home.items():
        found = files[file].get_slice(tensor)
        shapes[name] = tuple(found.get_shape())
        if found.get_dtype() not in TYPES:
            unread.append(f"{name} is {found.get_dtype()}")
    if unread:
        raise UserError(f"{folder}: tensors of a type that is not read: {', '.join(unread)}", f"Known: {', '.join(TYPES)}.")

    def read(name: str) -> np.ndarray:
        file, tensor = home[name]
        return files[file].get_tensor(tensor).astype(np.float32, copy=False)

    return shapes, read


def _newer(name: str) -> str:
    """The name that a norm's parameters have in files of today; BERT's were converted from TensorFlow's."""
    return re.sub("LayerNorm.gamma$", "LayerNorm.weight", re.sub("LayerNorm.beta$", "LayerNorm.bias", name))


def _weight_files(folder: Path) -> list[str]:
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        if not (folder / "model.safetensors").is_file():
            if list(folder.glob("*.bin")) or list(folder.glob("*.pt*")):
                raise UserError(f"{folder}: holds pickles alone (.bin), which can run code and are not read", CONVERT)
            raise UserError(f"{folder}: no model.safetensors", FETCH)
        return ["model.safetensors"]
    weights = json_files.read(index, FETCH).get("weight_map")
    names = sorted(set(weights.values())) if isinstance(weights, dict) else []
    if not names or any(not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors") for name in names):
        raise UserError(f"{index}: no list of safetensors files of this folder", FETCH)
    return names


def chat_of(folder: Path, settings: dict[str, Any], tokenizer: bytes) -> Chat:
    """What the folder's files say of conversations."""
    said = {
        name: json_files.read(folder / name, FETCH)
        for name in ("tokenizer_config.json", "generation_config.json")
        if (folder / name).is_file()
    }
    own, generation = said.get("tokenizer_config.json", {}), said.get("generation_config.json", {})
    tokens = {name: _content(own[name]) for name in ("bos_token", "eos_token", "unk_token", "pad_token") if own.get(name)}
    template = _bytes(folder / "chat_template.jinja").decode("utf-8", "replace") or _template(own.get("chat_template"))
    model, specials = _opened(folder, tokenizer)
    texts = {i: text for text, i in specials.items()}
    for role in ("bos_token", "eos_token"):  # where only the numbers are said
        if (text := texts.get(next(iter(_ids(settings.get(f"{role}_id"))), -1))) is not None:
            tokens.setdefault(role, text)
    stops = _ids(generation.get("eos_token_id")) or _ids(settings.get("eos_token_id"))
    if tokens.get("eos_token") in specials:
        stops = tuple(dict.fromkeys([*stops, specials[tokens["eos_token"]]]))
    start = tuple(model.encode("", add_special_tokens=True).ids)
    if start and start[-1] in stops:  # both ends of a sentence, as encoders have them
        start = ()
    defaults = {name: float(generation[name]) for name in DEFAULTS if isinstance(generation.get(name), int | float)}
    if generation.get("do_sample") is False:
        defaults["temperature"] = 0.0
    return Chat(template, tokens, specials, start, stops, defaults, *_vectors_of(folder))


def _vectors_of(folder: Path) -> tuple[str, int]:
    """(pool, tokens) as Sentence Transformers reads them. UserError for what is done to vectors that is not known."""
    if not (folder / "modules.json").is_file():
        return "", 0
    modules = {one["type"].rpartition(".")[2]: one["path"] for one in json_files.read(folder / "modules.json", FETCH, list)}
    unknown = sorted(modules.keys() - {"Transformer", "Pooling", "Normalize"})
    pooling = folder / Path(modules.get("Pooling", "")).name / "config.json"
    if "Pooling" in modules and not pooling.is_file():
        raise UserError(f"{pooling}: is missing, and modules.json names it", FETCH)
    said = json_files.read(pooling, FETCH) if "Pooling" in modules else {}
    unknown += [name for name, on in said.items() if name.startswith("pooling_mode_") and on is True and name not in POOLS]
    pools = [pool for name, pool in POOLS.items() if said.get(name)]
    if unknown or len(pools) > 1:
        what = ", ".join(unknown) or " and ".join(pools)
        raise UserError(f"{folder}: makes vectors of texts in a way that is not known: {what}", "Remove its modules.json to do without.")
    length = json_files.read(folder / LENGTH, FETCH).get("max_seq_length") if (folder / LENGTH).is_file() else 0
    return next(iter(pools), ""), int(length or 0)


def _vector_files(chat: Chat, width: int) -> dict[str, Any]:
    """The reverse of `_vectors_of`, with vectors of length one, as `omnia embed` writes them."""
    if chat.pool not in POOLS.values():
        return {}
    folders = {"Transformer": "", "Pooling": "1_Pooling", "Normalize": "2_Normalize"}
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (kind, path) in enumerate(folders.items())
    ]
    modes = {name: pool == chat.pool for name, pool in POOLS.items()}
    files = {"modules.json": modules, "1_Pooling/config.json": {"word_embedding_dimension": width, **modes}}
    return files | ({LENGTH: {"max_seq_length": chat.max_tokens, "do_lower_case": False}} if chat.max_tokens else {})


def _opened(folder: Path, tokenizer: bytes):
    """The tokenizer, and the ids of its special tokens."""
    import tokenizers

    try:
        model = tokenizers.Tokenizer.from_buffer(tokenizer)
    except Exception as error:  # of a foreign library, which has no class for them
        raise UserError(f"{folder}/tokenizer.json: not a tokenizer ({error})", FETCH) from None
    return model, {token.content: i for i, token in model.get_added_tokens_decoder().items() if token.special}


def _content(token) -> str:
    return token["content"] if isinstance(token, dict) else str(token)


def _template(found) -> str:
    """One template, or the one of several that is called default."""
    if isinstance(found, list):
        named = {one["name"]: one["template"] for one in found}
        return named.get("default", next(iter(named.values()), ""))
    return found or ""


def _ids(found) -> tuple[int, ...]:
    return () if found is None else (found,) if isinstance(found, int) else tuple(found)


def beside_weights(config: dict[str, Any], chat: Chat, tokenizer: bytes) -> dict[str, bytes]:
    """The small files of a folder, by name."""
    ids = {role.removesuffix("_token") + "_token_id": chat.specials[text] for role, text in chat.tokens.items() if text in chat.specials}
    wrong = [f"{name} {ids[name]}" for name in ids if config.get(name, ids[name]) != ids[name]]
    if wrong:  # RoBERTa's positions are counted from the padding's id
        kind = config["model_type"]
        raise UserError(f"a {kind} has other ids than {', '.join(wrong)}", "`omnia checkpoint export` writes it under our names.")
    stops: dict[str, Any] = {"eos_token_id": list(chat.stop_ids)} if len(chat.stop_ids) > 1 else {}
    whole = {name: int(value) if name == "top_k" else value for name, value in chat.defaults.items()}
    drawn = whole.get("temperature") != 0.0
    if not drawn:
        del whole["temperature"]
    own: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False, **chat.tokens}
    if chat.template:
        own["chat_template"] = chat.template
    inside = {"text_config": config["text_config"] | ids} if "text_config" in config else {}  # of a tower, which finds a text's end by them
    files: dict[str, Any] = {
        "config.json": config | ids | inside,
        "generation_config.json": ids | stops | whole | ({"do_sample": drawn} if whole or not drawn else {}),
    }
    if tokenizer:
        files["tokenizer_config.json"] = own
    files |= _vector_files(chat, config.get("hidden_size", config.get("dim", 0)))
    written = {name: (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode() for name, value in files.items()}
    return written | ({"tokenizer.json": tokenizer} if tokenizer else {})
