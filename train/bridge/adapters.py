"""Adapters, saved alone: a folder with adapter_config.json and adapter_model.safetensors, as PEFT has them; and read back onto a base.

Terms of low rank are written under PEFT's names where a published family is what the run trains. All else (bottlenecks, prefixes, prompts,
biases, heads) is written under our names, in the same two files, with "OMNIA" as its type. The weights carry the digest of the base.
"""

import dataclasses
import math
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import xxhash
from flax.traverse_util import flatten_dict, unflatten_dict

from data.errors import UserError
from data.files import json_files
from model.convert.families import family_of
from model.convert.family import Family, Tensor
from model.convert.low_rank import factors_of, to_ours, to_theirs
from train.adapters.low_rank import NAME
from train.adapters.method import found_at
from train.adapters.options import AdaLoRA, LoRA, LowRank, Tuning
from train.adapters.training import fresh_leaves, method_of
from train.bridge.beside import built_beside
from train.bridge.importing import save_parameters
from train.checkpoints.checkpointer import load_parameters, load_trained
from train.devices.mesh import make_mesh
from train.experiment import AdamW, Experiment, MeshShape
from train.objectives.bind import bind
from train.runs.classes import KEPT, finder
from train.runs.directory import CHAT, START, Run, keep_start, open_run, write_run
from train.runs.serialize import from_json, to_json

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."
"""Of PEFT's names."""
DIGEST = "base_digest"
"""Where the digest of the base stands among the metadata of the weights."""
OURS = "OMNIA"
"""The type of adapters under our names."""
TASKS = {"CausalLM": "CAUSAL_LM", "PrefixLM": "SEQ_2_SEQ_LM"}


# -------------------------------------------------------------------------------------------------------------------- writing


def export_adapters(run: Run, output: Path, *, step: int | None = None, raw: bool = False, said: Callable[[str], None] = print) -> None:
    """Write the folder, whole or not at all. UserError for a run without adapters."""
    from safetensors.numpy import save_file

    options, method = run.experiment.adapters, method_of(run.experiment)
    if method is None:
        raise UserError(f"{run.path}: was trained without adapters", "Choose --format hf or gguf.")
    assert isinstance(options, Tuning)
    if output.exists():
        raise UserError(f"{output}: exists", "Choose another --output, or remove it.")
    mesh = make_mesh(MeshShape(data=1), jax.devices("cpu")[:1])
    begun = open_run(run.path / START, said=lambda line: None)
    base = load_parameters(begun, mesh)[0]
    digest = digest_of(base)
    trained = load_trained(run, mesh, step=step, raw=raw)[0]
    why = _not_peft(run.experiment, trained)
    if why:
        said(f"{output}: under our names, which PEFT does not read: {why}")
        tensors = {"/".join(path): np.asarray(leaf) for path, leaf in flatten_dict(trained).items()}
        config: dict[str, Any] = {"peft_type": OURS, "adapters": to_json(options)}
    else:
        read = jax.device_get(method.compiled_read(base, trained)) if isinstance(options, AdaLoRA) else jax.device_get(trained)
        config, tensors = _in_peft(run.experiment, options, read)
    config["base_model_name_or_path"] = run.experiment.start
    with built_beside(output) as folder:
        folder.mkdir()
        json_files.write(folder / CONFIG, config)
        tensors = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
        save_file(tensors, folder / WEIGHTS, {"format": "pt", DIGEST: digest})
        (folder / WEIGHTS).chmod(0o644)  # their library makes weights that only their owner can read
    said(f"{output}: {type(options).__name__}, {sum(tensor.size for tensor in tensors.values()):,} parameters, base {digest}")


def digest_of(params) -> str:
    """Of parameters, by their names, shapes and values: 32 hexadecimal digits."""
    digest = xxhash.xxh3_128()
    for path, leaf in sorted(flatten_dict(params).items()):
        digest.update(f"{'/'.join(path)} {leaf.shape} {leaf.dtype};".encode())
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()


def _not_peft(experiment: Experiment, trained) -> str:
    """Why adapters have no place in PEFT's layout; "" where they have."""
    if not isinstance(experiment.adapters, LowRank):
        return f"{type(experiment.adapters).__name__} has another form there, or none"
    others = sorted({path[0] for path in flatten_dict(trained) if NAME not in path})
    if others:
        return f"beside them, {', '.join(others)} was trained"
    try:
        family, settings = family_of(experiment.model)
    except ValueError as error:
        return str(error)
    named = {path for tensor in family.tensors(experiment.model, "hf", settings) for path in tensor.paths}
    missing = sorted({"/".join(path) for path in found_at(trained, NAME)} - {path.removesuffix("/kernel") for path in named})
    return f"{', '.join(missing)} is no part of a {family.model_types[0]}" if missing else ""


def _adapted(family: Family, experiment: Experiment, settings, leaves: dict[str, Any]):
    """(their module, the tensor, the layer) of every tensor of which some projection has leaves."""
    for name, tensor, layer in family.each(experiment.model, "hf", settings):
        if any(path.removesuffix("/kernel") in leaves and path.endswith("/kernel") for path in tensor.paths):
            yield name.removesuffix(".weight"), tensor, layer


def _in_peft(experiment: Experiment, options: Tuning, trained) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """adapter_config.json and tensors. Of AdaLoRA what the model reads: triplets that are zero are left out, and ranks differ."""
    family, settings = family_of(experiment.model)
    sizes, leaves = family.sizes(experiment.model), {"/".join(path): leaf for path, leaf in found_at(trained, NAME).items()}
    tensors, ranks, joints = {}, {}, {}
    for module, tensor, layer in _adapted(family, experiment, settings, leaves):
        a, b, magnitudes = [], [], []
        for path in tensor.paths:
            leaf = leaves.get(path.removesuffix("/kernel"))
            if leaf is None:
                raise UserError(
                    f"adapters.targets: {', '.join(tensor.paths)} is one matrix of a {family.model_types[0]}, and {path} is not adapted",
                    "Adapt all of them, or export the whole model.",
                )
            one = {name: value if layer is None else value[layer] for name, value in leaf.items()}
            kept = np.flatnonzero(np.abs(one["b"]).max(1)) if isinstance(options, AdaLoRA) else slice(None)
            a.append(one["a"][:, kept])
            b.append(one["b"][kept])
            magnitudes += [one["magnitude"]] if "magnitude" in one else []
        first, second = to_theirs(tensor, a, b, sizes)
        if not len(first):
            continue
        ranks[module], joints[module] = len(first), len(tensor.paths)
        tensors[f"{PREFIX}{module}.lora_A.weight"], tensors[f"{PREFIX}{module}.lora_B.weight"] = first, second
        if magnitudes:
            tensors[f"{PREFIX}{module}.lora_magnitude_vector"] = factors_of(tensor)[2].to_theirs(magnitudes, sizes)
    if isinstance(options, LoRA):
        rank, alpha, rs, dora = options.rank, options.alpha, options.rs, options.dora
        alphas = {module: alpha * (math.sqrt(count) if rs else count) for module, count in joints.items() if count > 1}
    else:
        assert isinstance(options, AdaLoRA)
        rank, alpha, rs, dora = options.rank, float(options.rank), False, False  # the scale is in lora_B
        alphas = {module: float(found) for module, found in ranks.items()}
    config = {
        "peft_type": "LORA",
        "task_type": TASKS.get(type(experiment.objective).__name__),
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "use_rslora": rs,
        "use_dora": dora,
        "bias": "none",
        "fan_in_fan_out": family.model_types[0] == "gpt2",
        "target_modules": _targets(family, experiment, settings, list(ranks)),
        "rank_pattern": {module: found for module, found in ranks.items() if found != rank},
        "alpha_pattern": {module: found for module, found in alphas.items() if found != alpha},
        "inference_mode": True,
    }
    return config, tensors


def _targets(family: Family, experiment: Experiment, settings, modules: list[str]) -> list[str]:
    """The modules by their last names, where those name no other; else in full."""
    every = {name.removesuffix(".weight") for name, *_ in family.each(experiment.model, "hf", settings) if name.endswith(".weight")}
    short = sorted({module.split(".")[-1] for module in modules})
    return short if {module for module in every if module.split(".")[-1] in short} == set(modules) else modules


# -------------------------------------------------------------------------------------------------------------------- reading


def import_adapters(folder: Path, base: Run, run_dir: Path, said: Callable[[str], None] = print) -> Run:
    """Make a run in `run_dir` that has the adapters of a folder and started from the run `base`. UserError for adapters of another base,
    as far as a digest says, or that do not fit it by name and shape."""
    from safetensors import safe_open
    from safetensors.numpy import load_file

    if run_dir.exists() and (not run_dir.is_dir() or any(run_dir.iterdir())):
        raise UserError(f"{run_dir}: exists", "Choose another --run-dir, or empty it.")
    config = json_files.read(folder / CONFIG, "Give a folder of adapters, as PEFT or `omnia export --format adapters` writes it.")
    if not (folder / WEIGHTS).is_file():
        raise UserError(f"{folder}: has no {WEIGHTS}", "Save the adapters as safetensors; pickles are not read.")
    tensors = load_file(folder / WEIGHTS)
    mesh = make_mesh(MeshShape(data=1), jax.devices("cpu")[:1])
    params = load_parameters(base, mesh)[0]
    with safe_open(folder / WEIGHTS, "numpy") as file:
        digest = (file.metadata() or {}).get(DIGEST)
    if digest and digest != digest_of(params):
        raise UserError(f"{folder}: belongs to another base than {base.path}", f"Give the run that it was trained on: digest {digest}.")
    try:
        options, leaves = _ours(base, config, tensors) if config.get("peft_type") == OURS else _of_peft(base.experiment, config, tensors)
    except (ValueError, KeyError) as error:
        what = f"{CONFIG} has no {error}" if isinstance(error, KeyError) else str(error)
        raise UserError(f"{folder}: {what}", "Only adapters of the same model can be read.") from None
    changes: dict[str, Any] = {"name": folder.resolve().name, "start": str(base.path.absolute()), "frozen": (), "ema_decay": 0.0}
    experiment = dataclasses.replace(base.experiment, **changes, adapters=options, optimizer=AdamW())
    _check_fits(folder, experiment, leaves)
    with built_beside(run_dir) as path:
        path.mkdir()
        base.tokenizer().save(str(path / "tokenizer"))
        keep_start(path / START, base)
        for name in (CHAT, KEPT):
            if (base.path / name).is_file():
                shutil.copy(base.path / name, path)
        run = Run(path, experiment, base.digests, base.document_end, secrets.token_hex(8), base.config)
        write_run(run)
        save_parameters(run, unflatten_dict(leaves))
    said(f"{run_dir}: {type(options).__name__}, {sum(leaf.size for leaf in leaves.values()):,} parameters beside {base.path}")
    return dataclasses.replace(run, path=run_dir)


def _ours(base: Run, config: dict[str, Any], tensors):
    options = from_json(Tuning, config["adapters"], "adapters", finder(str(base.path), None, print))
    return options, {tuple(name.split("/")): tensor for name, tensor in tensors.items()}


def _of_peft(experiment: Experiment, config: dict[str, Any], tensors):
    """Options and leaves of PEFT's adapters of low rank. ValueError for what cannot be read."""
    if config["peft_type"] != "LORA":
        raise ValueError(f"holds adapters of the type {config['peft_type']}, and only LORA can be read")
    if config.get("bias", "none") != "none" or config.get("modules_to_save"):
        raise ValueError("holds other parameters beside terms of low rank, which cannot be read")
    family, settings = family_of(experiment.model)
    sizes, names = family.sizes(experiment.model), dict(tensors)
    found: dict[str, dict[int | None, dict[str, np.ndarray]]] = {}
    rs, dora = bool(config.get("use_rslora")), bool(config.get("use_dora"))
    scales: set[float] = set()
    for name, tensor, layer in family.each(experiment.model, "hf", settings):
        module = name.removesuffix(".weight")
        if f"{PREFIX}{module}.lora_A.weight" not in names:
            continue
        first, second = (names.pop(f"{PREFIX}{module}.lora_{part}.weight").astype(np.float32) for part in "AB")
        rank = len(first)
        alpha = (config.get("alpha_pattern") or {}).get(module, config["lora_alpha"])
        scale = alpha / (math.sqrt(rank) if rs else rank)
        scales.add(scale)
        vectors: list[Any] = [None] * len(tensor.paths)
        if dora:
            vectors = _one_each(factors_of(tensor)[2], names.pop(f"{PREFIX}{module}.lora_magnitude_vector"), sizes)
        try:
            parts = to_ours(tensor, first, second, sizes)
        except ValueError as error:
            raise ValueError(f"{module} {error}") from None
        for path, (a, b), magnitude in zip(tensor.paths, parts, vectors, strict=True):
            leaf = {"a": a, "b": b * np.float32(scale)} | ({"magnitude": magnitude} if dora else {})
            found.setdefault(path.removesuffix("/kernel"), {})[layer] = leaf
    if names:
        raise ValueError(f"holds {min(names)}, which has no place in a {family.model_types[0]}")
    if not found:
        raise ValueError("holds no terms of low rank")
    rank = max(leaf["a"].shape[1] for layers in found.values() for leaf in layers.values())
    # One scale for all is kept, so that training goes on as it would have there; several go into the factors.
    scale = scales.pop() if len(scales) == 1 else 1.0
    options = LoRA(targets=tuple(sorted(found)), rank=rank, alpha=scale * (math.sqrt(rank) if rs else rank), rs=rs, dora=dora)
    leaves = {}
    for path, layers in found.items():
        if dora and set(layers) not in ({None}, set(range(experiment.model.own_layers))):
            raise ValueError(f"adapts {path} in some layers alone, which cannot be read with use_dora")
        whole = [_filled(layers.get(layer), layers, rank, scale) for layer in _layers(layers, experiment)]
        for name in whole[0]:
            stacked = np.stack([one[name] for one in whole]) if None not in layers else whole[0][name]
            leaves[*path.split("/"), NAME, name] = stacked
    return options, leaves


def _one_each(tensor: Tensor, theirs: np.ndarray, sizes) -> list[np.ndarray]:
    return [part.reshape(-1) for part in tensor.to_ours(theirs.reshape(-1).astype(np.float32), sizes)]


def _layers(layers: dict, experiment: Experiment) -> list[int | None]:
    return [None] if None in layers else list(range(experiment.model.own_layers))


def _filled(leaf: dict[str, Any] | None, like: dict, rank: int, scale: float) -> dict[str, Any]:
    """A layer's leaves with zeros up to the largest rank; all zeros where the layer has none."""
    some = next(iter(like.values()))
    leaf = leaf or {"a": some["a"][:, :0], "b": some["b"][:0]}
    missing = rank - leaf["a"].shape[1]
    return leaf | {"a": np.pad(leaf["a"], ((0, 0), (0, missing))), "b": np.pad(leaf["b"] / np.float32(scale), ((0, missing), (0, 0)))}


def _check_fits(folder: Path, experiment: Experiment, leaves) -> None:
    """UserError unless the leaves are those that the experiment trains, in their shapes."""
    method = method_of(experiment)
    assert method is not None
    shapes = jax.eval_shape(lambda key: fresh_leaves(bind(experiment), method, key), jax.random.key(0))
    expected = {path: jax.tree.leaves(box)[0].shape for path, box in flatten_dict(shapes).items()}
    there = {path: leaf.shape for path, leaf in leaves.items()}
    for path in sorted(expected.keys() | there.keys()):
        if expected.get(path) != there.get(path):
            what = f"is {there.get(path, 'missing')} here, and {expected.get(path, 'nothing')} in {experiment.start}"
            raise UserError(f"{folder}: {'/'.join(path)} {what}", "Only adapters of the same model can be read.")
