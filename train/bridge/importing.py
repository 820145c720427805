"""A published model becomes a run: its parameters at step 0, its tokenizer, and what belongs to a conversation with it."""

import dataclasses
import math
import secrets
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from data.errors import UserError
from data.tokenizer import Tokenizer, byte_tokenizer, hugging_face_tokenizer
from model.encoder_decoder_config import EncoderDecoderConfig
from model.media.tower_config import TowerConfig
from model.text_encoder_config import TextEncoderConfig
from train.bridge.beside import built_beside
from train.bridge.gguf import open_gguf
from train.bridge.hugging_face import open_folder
from train.bridge.published import Published, check_tensors, config_of_file
from train.bridge.task_heads import fitting
from train.bridge.towers import experiment_of_tower, with_vocabulary
from train.checkpoints.checkpointer import Checkpointer
from train.devices.mesh import make_mesh
from train.experiment import SGD, CausalLM, Experiment, MeshShape, Samples, TextData
from train.kinds import Objective, realise
from train.loop.progress import Progress
from train.objectives.bind import bind, state_of
from train.objectives.text.options import MaskedLM, PrefixLM, SimCSE
from train.optimizers.build import optimizer_of
from train.runs.directory import Run, write_run
from train.step.anomalies import no_history
from train.step.state import State
from train.tasks.task import Task

ALIGNMENT = 64
"""Bytes."""


def open_published(path: Path) -> Published:
    """A folder of Hugging Face's, or a GGUF file. UserError for anything else."""
    if path.is_dir():
        return open_folder(path)
    if path.is_file() and path.suffix == ".gguf":
        return open_gguf(path)
    if not path.exists():
        raise UserError(f"{path}: not there", "Give a folder with config.json and safetensors, a .gguf file, smollm2 or minilm.")
    raise UserError(f"{path}: neither a folder nor a .gguf file", "Give a folder with config.json and safetensors, or a .gguf file.")


def load_published(path: Path) -> tuple[Any, Any]:
    """(config, parameters) of a published model: NumPy arrays, float32. Of an encoder of media, see TowerConfig."""
    published = open_published(path)
    config = config_of_file(published)
    return config, read_parameters(published, config, check_tensors(published, config))


def import_model(path: Path, run_dir: Path, said: Callable[[str], None] = print) -> Run:
    """Make the run in `run_dir`, which must not be there yet or be empty. Built beside it and renamed: whole, or not there at all.

    Tensor by tensor: memory holds the model once in float32, and its largest tensor.
    """
    if run_dir.exists() and (not run_dir.is_dir() or any(run_dir.iterdir())):
        raise UserError(f"{run_dir}: exists", "Choose another --run-dir, or empty it.")
    published = open_published(path)
    config = config_of_file(published)
    names = check_tensors(published, config)
    text = config.text if isinstance(config, TowerConfig) else config
    if not published.tokenizer and text is not None:
        raise UserError(f"{path}: no tokenizer.json", "Save one: AutoTokenizer.from_pretrained('FOLDER').save_pretrained('FOLDER').")
    end = published.chat.tokens.get("eos_token", "")
    tokenizer = hugging_face_tokenizer(published.tokenizer, end) if published.tokenizer else byte_tokenizer()
    if text is not None and tokenizer.base_size > text.vocab_size:
        raise UserError(
            f"{published.where}: its tokenizer has {tokenizer.base_size} ids, its model {text.vocab_size}",
            "Fetch the files again: they are not of one model.",
        )
    name = path.stem if path.is_file() else path.resolve().name
    if isinstance(config, TowerConfig):
        experiment = experiment_of_tower(
            name, config, tokenizer, published.chat.specials.get(published.chat.tokens.get("bos_token", ""), -1)
        )
    else:
        experiment = experiment_of(name, config, tokenizer, published.task)
    with built_beside(run_dir) as folder:
        folder.mkdir()
        tokenizer.save(str(folder / "tokenizer"))
        if published.tokenizer:
            published.chat.save(folder)
        run = Run(folder, experiment, (), tokenizer.specials["document_end"], secrets.token_hex(8), None)
        write_run(run)
        params = with_vocabulary(read_parameters(published, config, names), experiment, _aligned)
        save_parameters(run, params)
    said(f"{run_dir}: {published.family.model_types[0]}, {sum(leaf.size for leaf in jax.tree.leaves(params)):,} parameters")
    return dataclasses.replace(run, path=run_dir)


def experiment_of(name: str, config, tokenizer: Tokenizer, task: tuple[Task, Objective] | None = None) -> Experiment:
    """What an imported model is as a run: nothing was trained, so its optimizer keeps no moments. The objective is that of the task, or the
    one that it has what it takes for."""
    options: dict[str, Any] = {"optimizer": SGD(), "mesh": MeshShape(data=1), "samples": Samples(tokens=0)}
    if task is not None:
        return Experiment(name=name, model=config, data=fitting(task[0], config), objective=task[1], **options)
    objective: Objective = CausalLM()
    if isinstance(config, EncoderDecoderConfig):
        objective = PrefixLM()
    elif isinstance(config, TextEncoderConfig):
        objective = MaskedLM() if config.prediction_head else SimCSE()
    if isinstance(objective, SimCSE):
        config = dataclasses.replace(config, dropout=0.1)  # which two views of a text differ by
    objective = objective.completed([SimpleNamespace(tokenizer=lambda: tokenizer)])
    return Experiment(name=name, model=config, data=TextData(), objective=objective, **options)


def read_parameters(published: Published, config, names: dict[str, str]):
    """Our tree of parameters, float32. names: of the file's tensors, by those of the table."""
    if published.task is not None:
        start = bind(Experiment(model=config, data=published.task[0], objective=published.task[1])).start
    else:
        start = bind(experiment_of_tower("", config)).start if isinstance(config, TowerConfig) else realise(config).start
    shapes = nn.unbox(jax.eval_shape(start, jax.random.key(0)))
    params = jax.tree.map(lambda leaf: _aligned(leaf.shape), shapes)
    leaves = {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(params)}
    published.family.fill(leaves, config, published.layout, published.settings, lambda name: published.read(names[name]))
    return params


def _aligned(shape: tuple[int, ...]) -> np.ndarray:
    """An array of float32 whose memory JAX takes over as it is: where it lies otherwise, on a CPU, it is copied."""
    size = 4 * math.prod(shape)
    memory = np.empty(size + ALIGNMENT, np.uint8)
    begin = -memory.ctypes.data % ALIGNMENT
    return memory[begin : begin + size].view(np.float32).reshape(shape)


def save_parameters(run: Run, params) -> None:
    """As the run's checkpoint of step 0."""
    mesh = make_mesh(MeshShape(data=1), jax.devices("cpu")[:1])
    abstract = state_of(run.experiment, mesh, ema=False)
    placed = jax.tree.map(lambda leaf, at: jax.device_put(leaf, at.sharding), params, abstract.params)
    state = State(
        step=jax.numpy.int32(0),
        cursor=jax.numpy.int32(0),
        params=placed,
        opt_state=optimizer_of(run.experiment).init(placed),
        history=no_history(),
        carry=None,
    )
    checkpointer = Checkpointer(run.path, run.experiment.checkpoints, identity=run.identity)
    try:
        checkpointer.save(state, Progress().to_json())
        checkpointer.wait()
    finally:
        checkpointer.close()
