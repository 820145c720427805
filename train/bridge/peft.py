"""Adapters in PEFT's words: the settings and tensors of its LORA, PREFIX_TUNING and PROMPT_TUNING, for published families.

A head that was trained beside them is one of `modules_to_save`. Prefixes and prompts are the same there for decoders with rotary positions
alone: PEFT counts their places among the positions of the tokens behind them, which rotation does not notice, and other positions do.
"""

import dataclasses
import math
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from data.errors import UserError
from model.convert.families import family_of
from model.convert.family import Family, Tensor
from model.convert.low_rank import factors_of, to_ours, to_theirs
from model.positions import rotary_angles, rotate
from model.text_encoder_config import TextEncoderConfig
from train.adapters.low_rank import NAME
from train.adapters.method import found_at
from train.adapters.options import AdaLoRA, LoRA, LowRank, Prefix, Prompt, Tuning
from train.bridge.task_heads import KINDS, TaskHead, labels_of, leaving_head, task_of, with_head
from train.experiment import Experiment
from train.objectives.tasks.options import Supervised
from train.tasks.task import Task

BASE = "base_model.model."
"""Of PEFT's names."""
TASKS = {"decoder": "CAUSAL_LM", "encoder-decoder": "SEQ_2_SEQ_LM", "encoder": "FEATURE_EXTRACTION"}
"""PEFT's, by the kinds of models, where no head says another."""
OTHER_MEANING = ("lora_bias", "layer_replication", "trainable_token_indices", "alora_invocation_tokens", "target_parameters")
"""Of PEFT's settings, those under which terms of low rank are not all there is, or are not always on."""
ORDINARY = (True, False, None, "gaussian", "eva", "orthogonal")
"""Ways in which terms of low rank begin beside an unchanged base."""
SOFT = "prompt_embeddings"
"""PEFT's name of the tensor of a prefix or a prompt."""


class Read(NamedTuple):
    """Options and trained leaves, by their paths; and the task of a head among them, with its objective."""

    options: Tuning
    leaves: dict[tuple[str, ...], np.ndarray]
    task: tuple[Task, Supervised] | None = None


# -------------------------------------------------------------------------------------------------------------------- writing


def why_not(experiment: Experiment, trained) -> str:
    """Why adapters have no place in PEFT's layout; "" where they have."""
    others = {path[0] for path in flatten_dict(trained) if not {NAME, "prefix", "prompt"} & {*path}}
    try:
        family, settings = family_of(experiment.model)
        head = leaving_head(experiment, family, settings) if "task_head" in others else None
    except ValueError as error:
        return str(error)
    if others := others - ({path.split("/")[0] for path in head.paths} if head else set()):
        return f"beside them, {', '.join(sorted(others))} was trained"
    if isinstance(experiment.adapters, Prefix | Prompt):
        return _why_not_soft(experiment)
    if not isinstance(experiment.adapters, LowRank):
        return f"{type(experiment.adapters).__name__} has another form there, or none"
    named = {path for tensor in family.tensors(experiment.model, "hf", settings) for path in tensor.paths}
    missing = sorted({"/".join(path) for path in found_at(trained, NAME)} - {path.removesuffix("/kernel") for path in named})
    return f"{', '.join(missing)} is no part of a {family.model_types[0]}" if missing else ""


def _why_not_soft(experiment: Experiment) -> str:
    c, kind = experiment.model, type(experiment.adapters).__name__
    if c.kind != "decoder" or c.positions != "rotary" or c.rotary_scaling == "yarn" or c.window or c.embed_scale:
        return f"a {kind} is the same there for decoders with rotary positions alone, without windows or scaled embeddings"
    whole = c.head_width * c.num_heads == c.embed_dim
    return "" if whole or isinstance(experiment.adapters, Prompt) else f"a {kind} there is as wide as the model, and its heads are not"


def to_peft(experiment: Experiment, options: Tuning, trained, base) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """adapter_config.json and tensors. Of AdaLoRA what the model reads: triplets that are zero are left out, and ranks differ. base: all
    other parameters."""
    if isinstance(options, Prefix | Prompt):
        return _soft_to_peft(experiment, options, trained)
    config, tensors = _low_rank_to_peft(experiment, options, trained)
    if "task_head" in trained:
        head = leaving_head(experiment, *family_of(experiment.model))
        assert head is not None
        tensors |= _head_tensors(head, trained, base)
        config |= {"task_type": head.kind.task, "modules_to_save": [head.kind.module]}
    return config, tensors


def _head_tensors(head: TaskHead, trained, base) -> dict[str, np.ndarray]:
    sizes = head.family.sizes(head.config)
    leaves = {"/".join(path): np.asarray(leaf) for tree in (base, trained) for path, leaf in flatten_dict(tree).items()}
    return {f"{BASE}{tensor.name}": tensor.to_theirs([leaves[path] for path in tensor.paths], sizes) for tensor in head.tensors}


def _adapted(family: Family, experiment: Experiment, settings, leaves: dict[str, Any]) -> Iterator[tuple[str, Tensor, int | None]]:
    """(their module, the tensor, the layer) of every tensor of which some projection has leaves."""
    for name, tensor, layer in family.each(experiment.model, "hf", settings):
        if any(path.removesuffix("/kernel") in leaves and path.endswith("/kernel") for path in tensor.paths):
            yield name.removesuffix(".weight"), tensor, layer


def _low_rank_to_peft(experiment: Experiment, options: Tuning, trained) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
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
        tensors[f"{BASE}{module}.lora_A.weight"], tensors[f"{BASE}{module}.lora_B.weight"] = first, second
        if magnitudes:
            tensors[f"{BASE}{module}.lora_magnitude_vector"] = factors_of(tensor)[2].to_theirs(magnitudes, sizes)
    if isinstance(options, LoRA):
        rank, alpha, rs, dora = options.rank, options.alpha, options.rs, options.dora
        alphas = {module: alpha * (math.sqrt(count) if rs else count) for module, count in joints.items() if count > 1}
    else:
        assert isinstance(options, AdaLoRA)
        rank, alpha, rs, dora = options.rank, float(options.rank), False, False  # the scale is in lora_B
        alphas = {module: float(found) for module, found in ranks.items()}
    config = {
        "peft_type": "LORA",
        "task_type": TASKS.get(experiment.model.kind),
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


def _soft_to_peft(experiment: Experiment, options: Prefix | Prompt, trained) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    c = experiment.model
    config = {
        "peft_type": "PREFIX_TUNING" if isinstance(options, Prefix) else "PROMPT_TUNING",
        "task_type": "CAUSAL_LM",
        "num_virtual_tokens": options.length,
        "num_layers": c.num_layers,
        "num_attention_heads": c.kv_heads if isinstance(options, Prefix) else c.num_heads,
        "token_dim": c.kv_heads * c.head_width if isinstance(options, Prefix) else c.embed_dim,
        "num_transformer_submodules": 1,
        "inference_mode": True,
    }
    if isinstance(options, Prompt):
        return config | {"prompt_tuning_init": "RANDOM"}, {SOFT: np.asarray(trained["prompt"]["vectors"], np.float32)}
    prefix = trained["layers"]["attention"]["prefix"]
    both = np.stack([_turned(prefix["key"], c, options.length), np.asarray(prefix["value"], np.float32)], 1)  # [L, 2, P, G, K]
    return config | {"prefix_projection": False}, {SOFT: np.moveaxis(both, 2, 0).reshape(options.length, -1)}


def _turned(keys_LPGK, config, places: int) -> np.ndarray:
    """Keys of a prefix rotated by a number of places: behind them PEFT's tokens stand so many places further on than ours."""
    angles = rotary_angles(jnp.full(keys_LPGK.shape[:2], places), config)
    return np.asarray(rotate(jnp.asarray(keys_LPGK, jnp.float32), angles))


# -------------------------------------------------------------------------------------------------------------------- reading


def of_peft(experiment: Experiment, config: dict[str, Any], tensors: dict[str, np.ndarray]) -> Read:
    """PEFT's adapters on the model of an experiment. ValueError for what cannot be read."""
    kind = config["peft_type"]
    if kind in ("PREFIX_TUNING", "PROMPT_TUNING"):
        return _soft_of_peft(experiment, kind, config, tensors)
    if kind != "LORA":
        raise ValueError(f"holds adapters of the type {kind}, and only LORA, PREFIX_TUNING and PROMPT_TUNING can be read")
    if config.get("bias", "none") != "none":
        raise ValueError("holds biases beside terms of low rank, which cannot be read")
    if strange := [name for name in OTHER_MEANING if config.get(name)]:
        raise ValueError(f"has {strange[0]}, which makes something else of the terms and cannot be read")
    if config.get("init_lora_weights", True) not in ORDINARY:
        raise ValueError(f"was begun by {config['init_lora_weights']!r}, which changes the base")
    if not isinstance(config.get("modules_to_save") or [], list) or not isinstance(config.get("alpha_pattern") or {}, dict):
        raise ValueError("has modules_to_save or an alpha_pattern of another form")
    names = dict(tensors)
    if not config.get("modules_to_save"):
        return Read(*_low_rank_of_peft(experiment, config, names))
    task, head = _head_of_peft(experiment, config, names)
    options, leaves = _low_rank_of_peft(experiment, config, names)
    return Read(dataclasses.replace(options, trained=tuple(sorted({path[0] for path in head}))), leaves | head, task)


def _head_of_peft(experiment: Experiment, config: dict[str, Any], names: dict[str, np.ndarray]):
    """(the task of a head that was saved beside, its leaves), taken out of `names`. Labels without names are LABEL_0, LABEL_1, ..."""
    family, _ = family_of(experiment.model)
    ending = next((one for one, kind in KINDS.items() if kind.task == config.get("task_type")), None)
    modules = set(config["modules_to_save"]) & {kind.module for kind in KINDS.values()}
    there = [name for name in names if name.removeprefix(BASE).split(".")[0] in modules]
    model = experiment.model
    if not isinstance(model, TextEncoderConfig) or ending is None or KINDS[ending].module not in modules or not there:
        raise ValueError(f"saves {', '.join(config['modules_to_save'])} with the task {config.get('task_type')}, which cannot be read")
    last = next((name for name in there if name.endswith("out_proj.bias")), f"{BASE}{KINDS[ending].module}.bias")
    if last not in there:
        raise ValueError(f"has no {last.removeprefix(BASE)}")
    width = len(names[last])
    labels = getattr(experiment.objective, "labels", ()) or labels_of({"num_labels": width})
    if len(labels) != width and ending != "ForQuestionAnswering":
        raise ValueError(f"has a head for {width} labels, and the base one for {len(labels)}")
    task, width, objective = task_of(ending, labels, number=width == 1)
    whole, leaves = with_head(family, ending, width), {}
    for tensor in whole.tensors(dataclasses.replace(model, prediction_head=False, pooler=True), "hf", {}):
        if f"{BASE}{tensor.name}" in there:
            parts = tensor.to_ours(names.pop(f"{BASE}{tensor.name}").astype(np.float32), whole.sizes(model))
            leaves |= {tuple(path.split("/")): part for path, part in zip(tensor.paths, parts, strict=True)}
    return (task, objective), leaves


def _soft_of_peft(experiment: Experiment, kind: str, config: dict[str, Any], tensors: dict[str, np.ndarray]) -> Read:
    c, places = experiment.model, int(config["num_virtual_tokens"])
    options: Tuning = Prefix(length=places) if kind == "PREFIX_TUNING" else Prompt(length=places)
    why = _why_not_soft(dataclasses.replace(experiment, adapters=options, start=experiment.start or "."))
    if why or config.get("prefix_projection"):
        raise ValueError(why or "makes its prefix by layers of its own, which cannot be read")
    if set(tensors) != {SOFT}:
        raise ValueError(f"holds {', '.join(sorted(tensors))}, and {SOFT} alone can be read: save it with save_embedding_layers=False")
    found = tensors[SOFT].astype(np.float32)
    wanted = (places, 2 * c.num_layers * c.kv_heads * c.head_width if kind == "PREFIX_TUNING" else c.embed_dim)
    if found.shape != wanted:
        raise ValueError(f"{SOFT} is {found.shape}, and {wanted} in this model")
    if kind == "PROMPT_TUNING":
        return Read(options, {("prompt", "vectors"): found})
    both = np.moveaxis(found.reshape(places, c.num_layers, 2, c.kv_heads, c.head_width), 0, 2)
    where = ("layers", "attention", "prefix")
    return Read(options, {(*where, "key"): _turned(both[:, 0], c, -places), (*where, "value"): np.ascontiguousarray(both[:, 1])})


def _low_rank_of_peft(experiment: Experiment, config: dict[str, Any], names: dict[str, np.ndarray]):
    """Options and leaves of terms of low rank."""
    family, settings = family_of(experiment.model)
    sizes = family.sizes(experiment.model)
    found: dict[str, dict[int | None, dict[str, np.ndarray]]] = {}
    rs, dora = bool(config.get("use_rslora")), bool(config.get("use_dora"))
    scales: set[float] = set()
    for name, tensor, layer in family.each(experiment.model, "hf", settings):
        module = name.removesuffix(".weight")
        if f"{BASE}{module}.lora_A.weight" not in names:
            continue
        first, second = (names.pop(f"{BASE}{module}.lora_{part}.weight").astype(np.float32) for part in "AB")
        rank = len(first)
        alpha = _of_module(config.get("alpha_pattern") or {}, module, config["lora_alpha"])
        scale = alpha / (math.sqrt(rank) if rs else rank)
        scales.add(scale)
        vectors: list[Any] = [None] * len(tensor.paths)
        if dora:
            vectors = _one_each(factors_of(tensor)[2], names.pop(f"{BASE}{module}.lora_magnitude_vector"), sizes)
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
    scale = scales.pop() if len(scales) == 1 and 0 not in scales else 1.0
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


def _of_module(patterns: dict[str, Any], module: str, usual: Any) -> Any:
    """What the first pattern says that is all of the module's name, or its end behind a dot, as PEFT reads them."""
    return next((value for pattern, value in patterns.items() if re.match(rf"(.*\.)?({pattern})$", module)), usual)


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
