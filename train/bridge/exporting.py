"""A run is written as others read it: a Hugging Face folder, or a GGUF file."""

import dataclasses
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import ml_dtypes
import numpy as np

from data.errors import UserError
from data.files import json_files
from data.files.storage import sync_folder
from data.tokenizer import Tokenizer
from model.convert.families import family_of
from model.convert.family import Layout
from train.bridge.gguf import write_gguf
from train.bridge.hugging_face import beside_weights
from train.bridge.published import Leaving
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
    leaving = leaving_of(run, step=step, raw=raw)
    if not leaving.tokenizer and getattr(leaving.config, "text", True):
        said(f"the tokenizer of {run.path} is Omnia's own and has no tokenizer.json: the weights are written without it")
    lost = [part for part in ("pooler", "prediction_head") if form == "gguf" and getattr(leaving.config, part, False)]
    if lost:
        said(f"a GGUF file has no place for {' and '.join(lost)} of {run.path}: the encoder is written without")
    partial = output.absolute().with_name(output.name + ".partial")
    _remove(partial)
    partial.parent.mkdir(parents=True, exist_ok=True)
    try:
        if form == "hf":
            _write_folder(partial, leaving, kind)
        else:
            write_gguf(partial, leaving, kind)
        partial.rename(output)
    finally:
        _remove(partial)
    sync_folder(str(output.absolute().parent))
    said(f"{output}: {leaving.family.model_types[0]}, {kind}")


def _remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def leaving_of(run: Run, *, step: int | None = None, raw: bool = False) -> Leaving:
    """UserError where no published family is what the run trains."""
    tokenizer = run.tokenizer()
    tower = tower_of(run.experiment, tokenizer)
    config = tower or run.experiment.model
    if not run.experiment.objective.uses_model:
        raise UserError(f"{run.path}: has no model of its own that others could read", "Give a run of a language model.")
    try:
        family, settings = family_of(config)
    except ValueError as error:
        raise UserError(f"{run.path}: {error}", "`omnia checkpoint export` writes any run's parameters under our names.") from None
    mesh = make_mesh(MeshShape(data=1), jax.devices("cpu")[:1])
    params, _ = load_parameters(run, mesh, step=step, raw=raw)
    leaves = {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(params)}
    leaves = cut_to(leaves, tower) if tower else leaves

    def tensors(layout: Layout, settings: dict[str, Any]) -> Iterator[tuple[str, np.ndarray]]:
        return family.unfilled(leaves, config, layout, settings)

    return Leaving(family, config, settings, chat_of(run, tokenizer), tokenizer.files.get("huggingface.json", b""), tensors)


def chat_of(run: Run, tokenizer: Tokenizer) -> Chat:
    """The run's, or of one that was trained here, what others must know: its documents begin and end with one token."""
    chat = load_chat(run.path)
    content = tokenizer.files.get("huggingface.json")
    if chat.specials or content is None or run.document_end is None:
        return chat
    added = {token["content"]: token["id"] for token in json.loads(content).get("added_tokens") or ()}
    end = next((text for text, i in added.items() if i == run.document_end), None)
    if end is None:
        return chat
    return dataclasses.replace(chat, tokens={"bos_token": end, "eos_token": end}, specials=added, stop_ids=(run.document_end,))


def _write_folder(folder: Path, leaving: Leaving, kind: str) -> None:
    """config.json, tokenizer and weights; several files of weights with an index where one would be large."""
    from safetensors.numpy import save_file

    folder.mkdir()
    settings = leaving.settings | {"torch_dtype": TYPES[kind].__name__ if kind == "bf16" else np.dtype(TYPES[kind]).name}
    settings, pixels = split_off_pixels(settings)
    if pixels:
        json_files.write(folder / "preprocessor_config.json", pixels)
    for name, content in beside_weights(settings, leaving.chat, leaving.tokenizer).items():
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
    for path in folder.iterdir():
        path.chmod(0o644)  # their library makes weights that only their owner can read
        with path.open("rb") as file:
            os.fsync(file.fileno())
