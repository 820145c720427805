"""A run is written as others read it: a Hugging Face folder, or a GGUF file."""

import dataclasses
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import ml_dtypes
import numpy as np

from data.errors import UserError
from data.files import json_files
from data.tokenizer import Tokenizer
from model.config import ModelConfig
from model.convert.families import family_of
from model.convert.family import Layout
from model.text_encoder_config import TextEncoderConfig
from train.bridge.beside import built_beside
from train.bridge.gguf import write_gguf
from train.bridge.gguf_tokenizer import template_processing
from train.bridge.hugging_face import beside_weights
from train.bridge.published import Leaving
from train.bridge.task_heads import leaving_head
from train.bridge.towers import cut_to, split_off_pixels, tower_of
from train.checkpoints.checkpointer import load_parameters
from train.devices.mesh import make_mesh
from train.experiment import MeshShape
from train.generation.chat import Chat, load_chat
from train.runs.directory import Run

SHARD_BYTES = 1 << 30
TYPES: dict[str, Any] = {"f32": np.float32, "f16": np.float16, "bf16": ml_dtypes.bfloat16}
"""Of the weights in a safetensors file."""


def export_model(
    run: Run,
    form: str,
    output: Path,
    kind: str = "f32",
    *,
    step: int | None = None,
    raw: bool = False,
    said: Callable[[str], None] = print,
) -> None:
    """Write `output`, whole or not at all: a folder (hf) or a file (gguf). UserError for what has no place in the format."""
    if output.exists():
        raise UserError(f"{output}: exists", "Choose another --output, or remove it.")
    if form == "gguf" and output.suffix != ".gguf":
        raise UserError(f"--output {output}: not the name of a GGUF file", "Give a name that ends in .gguf.")
    if form == "hf" and kind not in TYPES:
        raise UserError(f"--type {kind} is for --format gguf alone", f"Choose from {', '.join(TYPES)}.")
    leaving = leaving_of(run, form, said, step=step, raw=raw)
    if not leaving.tokenizer and getattr(leaving.config, "text", True):
        said(f"the tokenizer of {run.path} is Omnia's own and has no tokenizer.json: the weights are written without it")
    lost = [part for part in ("pooler", "prediction_head") if form == "gguf" and getattr(leaving.config, part, False)]
    if lost:
        said(f"a GGUF file has no place for {' and '.join(lost)} of {run.path}: the encoder is written without")
    with built_beside(output) as path:
        if form == "hf":
            _write_folder(path, leaving, kind)
        else:
            write_gguf(path, leaving, kind)
    said(f"{output}: {leaving.family.model_types[0]}, {kind}")


def leaving_of(run: Run, form: str, said: Callable[[str], None], *, step: int | None = None, raw: bool = False) -> Leaving:
    """UserError where no published family is what the run trains. said: is told of a head that stays behind."""
    tokenizer = run.tokenizer()
    tower = tower_of(run.experiment, tokenizer)
    config = tower or run.experiment.model
    if not run.experiment.objective.uses_model:
        raise UserError(f"{run.path}: has no model of its own that others could read", "Give a run of a language model.")
    try:
        family, settings = family_of(config)
    except ValueError as error:
        raise UserError(f"{run.path}: {error}", "`omnia checkpoint export` writes any run's parameters under our names.") from None
    head, why = None, "a GGUF file has no place for it" if form == "gguf" else "no class of theirs has several heads"
    try:
        head = leaving_head(run.experiment, family, settings) if form == "hf" else None
    except ValueError as error:
        why = str(error)
    mesh = make_mesh(MeshShape(data=1), jax.devices("cpu")[:1])
    params, _ = load_parameters(run, mesh, step=step, raw=raw)
    leaves = {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(params)}
    leaves = cut_to(leaves, tower) if tower else leaves
    if head is not None:
        family, config, settings = head.family, head.config, head.settings
    elif any(path.startswith("task_head") for path in leaves):
        said(f"the head of {run.path} for its task stays behind: {why}")

    def tensors(layout: Layout, settings: dict[str, Any]) -> Iterator[tuple[str, np.ndarray]]:
        return family.unfilled(leaves, config, layout, settings)

    return Leaving(family, config, settings, *_words_of(run, tokenizer), tensors)


def _words_of(run: Run, tokenizer: Tokenizer) -> tuple[Chat, bytes]:
    """What belongs to a conversation, and tokenizer.json. Of a run that was trained here, with what others must know: which tokens stand
    around its documents, and that texts are read with them too."""
    chat, content = load_chat(run.path), tokenizer.files.get("huggingface.json", b"")
    whole = json.loads(content or b"{}")
    added = {token["content"]: token["id"] for token in whole.get("added_tokens") or ()}
    names = {i: text for text, i in added.items()}
    start, end = tokenizer.document_start, run.document_end
    if chat.specials or end is None or end not in names or start not in names:
        return chat, content
    chat = dataclasses.replace(chat, tokens={"bos_token": names[start], "eos_token": names[end]}, specials=added, stop_ids=(end,))
    model = run.experiment.model
    if isinstance(model, TextEncoderConfig):
        around = {"before": names[start], "after": names[end]}
    elif start != end and type(model) is ModelConfig:
        chat, around = dataclasses.replace(chat, start_ids=(start,)), {"before": names[start]}
    else:
        return chat, content
    if whole.get("post_processor") is None:
        whole["post_processor"] = template_processing(added, **around)
    return chat, json.dumps(whole, ensure_ascii=False).encode()


def _write_folder(folder: Path, leaving: Leaving, kind: str) -> None:
    """config.json, tokenizer and weights; several files of weights with an index where one would be large."""
    from safetensors.numpy import save_file

    folder.mkdir()
    settings = leaving.settings | {"torch_dtype": TYPES[kind].__name__ if kind == "bf16" else np.dtype(TYPES[kind]).name}
    settings, pixels = split_off_pixels(settings)
    if pixels:
        json_files.write(folder / "preprocessor_config.json", pixels)
    for name, content in beside_weights(settings, leaving.chat, leaving.tokenizer).items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    homes: dict[str, int] = {}
    shard: dict[str, np.ndarray] = {}
    count = total = 0

    def save() -> None:
        nonlocal count
        count += 1
        save_file(shard, folder / f"{count}.safetensors", {"format": "pt"})
        homes.update(dict.fromkeys(shard, count))
        shard.clear()

    for name, tensor in leaving.tensors("hf", leaving.settings):
        array = tensor.astype(TYPES[kind], copy=False)
        if shard and sum(one.nbytes for one in shard.values()) + array.nbytes > SHARD_BYTES:
            save()
        shard[name] = array
        total += array.nbytes
    save()
    names = {1: "model.safetensors"} if count == 1 else {i: f"model-{i:05}-of-{count:05}.safetensors" for i in range(1, count + 1)}
    for i, name in names.items():
        (folder / f"{i}.safetensors").rename(folder / name)
    if count > 1:
        index = {"metadata": {"total_size": total}, "weight_map": {name: names[home] for name, home in homes.items()}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1))
    for path in filter(Path.is_file, folder.rglob("*")):
        path.chmod(0o644)  # their library makes weights that only their owner can read
        with path.open("rb") as file:
            os.fsync(file.fileno())
