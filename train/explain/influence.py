"""Which training examples taught a run an answer: TracIn (Pruthi et al. 2020)."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from data.errors import UserError
from data.rows.order import fold
from data.text.rows import TextBatch
from model.encoder_decoder_config import EncoderDecoderConfig
from train.checkpoints.checkpointer import Checkpointer, load_trained
from train.devices.mesh import inference_mesh
from train.explain.subject import subject_of
from train.kinds import Dataset, Units
from train.objectives.bind import bind_trained
from train.optimizers.build import make_schedule
from train.runs.directory import Run
from train.runs.start import frozen_of
from train.sources.dataset import dataset_of
from train.step.gradients import loss_of, weights_of
from train.tasks.classification import Classification, ClassificationDataset
from train.tasks.examples import Example
from train.tasks.packing import Piece
from train.tasks.rows import SourceBatch, source_batch
from train.tasks.task import TaskDataset

AT_ONCE = 4
"""Units whose gradients exist at once."""
MOST = 20_000
"""Units that are read; of more, so many are drawn."""


class Influence(NamedTuple):
    """Of N units of the training data, float64 [N]. on_test: how much steps on each lowered the loss of the text, above 0, or raised it;
    on_self: the same of its own loss, never below 0."""

    numbers_N: np.ndarray
    on_test: np.ndarray
    on_self: np.ndarray


def influence(loss, checkpoints, test, units: Units, numbers_N: np.ndarray) -> Influence:
    """TracIn (Pruthi et al. 2020, eq. 1 and sec. 3.3): the sum over checkpoints of the learning rate times the product of the gradients of
    both losses, by all trained parameters; nothing is projected.

    loss(params, batch) -> float32 of one row. checkpoints: yields (params, learning rate). test: a batch of one row.
    """
    on_test, on_self = np.zeros(len(numbers_N)), np.zeros(len(numbers_N))
    gradient, compare = jax.jit(jax.grad(loss)), jax.jit(functools.partial(_compare, loss))
    for params, rate in checkpoints:
        test_gradient = gradient(params, test)
        for first in range(0, len(numbers_N), AT_ONCE):
            part = numbers_N[first : first + AT_ONCE]
            part_N = np.pad(part, (0, AT_ONCE - len(part)), constant_values=-1)
            batch = units.make(part_N, fold(0, part_N))
            products = np.asarray(compare(params, test_gradient, batch), np.float64)[:, : len(part)]
            on_test[first : first + AT_ONCE] += rate * products[0]
            on_self[first : first + AT_ONCE] += rate * products[1]
    return Influence(numbers_N, on_test, on_self)


def _compare(loss, params, test_gradient, batch):
    """float32 [2, B]: the product of each row's gradient with that of the test, and with itself."""

    def products(row):
        own = jax.grad(loss)(params, jax.tree.map(lambda x: x[None], row))
        pairs = list(zip(jax.tree.leaves(own), jax.tree.leaves(test_gradient), strict=True))
        return jnp.stack([sum(jnp.vdot(g, t) for g, t in pairs), sum(jnp.vdot(g, g) for g, _ in pairs)])

    return jax.vmap(products)(batch).T


def trained_by(run: Run, prompt: str, count: int, *, pair: str = "", written: str = "", answer: str = "", seed: int = 0) -> dict[str, Any]:
    """{"unit", "of", "read", "checkpoints", "helped", "hurt", "self"}: the `count` units of a run's training data that lowered the loss of
    a text the most, that raised it the most, and with the most influence on themselves, such as rare or mislabelled ones.

    The loss is that of the label `answer`, by default what the model finds likeliest; of an encoder-decoder, that of the token that is
    explained; of a decoder, that of all tokens of the text, or of the first of `answer` behind it. Of the checkpoints that the run kept
    each counts with the rate of its last step. A unit's loss is a mean over its own tokens. UserError for runs that are not explained, or
    not by examples, and for data without units.
    """
    subject = subject_of(run, prompt, pair=pair, written=written, answer=answer)
    experiment, mesh, dataset, sources = run.experiment, inference_mesh(run.experiment.mesh), dataset_of(run.experiment), run.corpora()
    _check_explained(run, dataset)
    units = dataset.units(sources)
    bound, frozen = bind_trained(experiment), frozen_of(run, mesh)
    if bound.carry is not None or experiment.objective.unit == "batch":
        what = f"{run.path}: the loss of {type(experiment.objective).__name__} is not a sum over examples"
        raise UserError(what, "Leave --training out.")

    def loss(params, batch):
        terms = bound.loss(params, batch, None, frozen=frozen)[0]
        return loss_of(terms, weights_of(terms))

    steps = [step for step in Checkpointer(run.path, experiment.checkpoints, identity=run.identity).steps() if step > 0]
    if not steps:
        raise UserError(f"{run.path}: has no checkpoint of training", "Train it first.")
    rate = make_schedule(experiment.schedule, experiment.optimizer.learning_rate, experiment.steps)
    checkpoints = ((load_trained(run, mesh, step=step, raw=True)[0], float(rate(step - 1))) for step in steps)
    rng, drawn = np.random.default_rng(seed), np.arange(units.size)
    if units.size > MOST:
        drawn = np.sort(rng.choice(units.size, MOST, replace=False))
    found = influence(loss, checkpoints, _test(dataset, subject, run, prompt, pair, written, answer), units, drawn)

    examples = dataset.examples(sources, "train") if isinstance(experiment.data, Classification) else None  # type: ignore[attr-defined]

    def listed(order) -> list[dict[str, Any]]:
        return [_told(run, examples, units, found, int(place)) for place in order[:count]]

    by_test = np.argsort(-found.on_test, kind="stable")
    return {
        "unit": units.what,
        "of": units.size,
        "read": len(drawn),
        "checkpoints": steps,
        "helped": listed([place for place in by_test if found.on_test[place] > 0]),
        "hurt": listed([place for place in by_test[::-1] if found.on_test[place] < 0]),
        "self": listed(np.argsort(-found.on_self, kind="stable")),
    }


def _check_explained(run: Run, dataset: Dataset) -> None:
    """UserError for a run whose answers are explained, but not by examples."""
    if isinstance(dataset, ClassificationDataset) and dataset.way == "head" and dataset.options.several:
        raise UserError(f"{run.path}: gives several labels at once, and a loss is of all of them", "Leave --training out.")
    if isinstance(run.experiment.model, EncoderDecoderConfig) and not isinstance(dataset, TaskDataset):
        raise UserError(f"{run.path}: learned no task: its texts do not say what is read, and what written", "Leave --training out.")


def _test(dataset: Dataset, subject, run: Run, prompt: str, pair: str, written: str, answer: str):
    """A batch of the text alone."""
    rows, tokenizer = np.zeros(1, np.int32), run.tokenizer()
    if isinstance(dataset, ClassificationDataset) and dataset.way == "head":
        item = dataset.item(Example({"text": prompt, "pair": pair}, subject.answer, "--prompt"), tokenizer, labelled=True)
        return dataset.make([item], [[0]], rows)
    if isinstance(dataset, TaskDataset) and dataset.way == "source":
        target = np.append(tokenizer.encode_inside(written), subject.number)
        item = (Piece(subject.ids_T, target=target, learned=np.arange(len(target)) == len(target) - 1),)
        return source_batch([item], [[0]], rows, len(subject.ids_T), len(target), run.experiment.model.start_token)  # type: ignore[attr-defined]
    ids = subject.ids_T.tolist()
    whole = np.array([*ids, subject.number] if answer else ids, np.int32)[None]
    if whole.shape[1] < 2:
        raise UserError("--prompt has one token, of which nothing can be predicted", "Give a longer text, or --answer.")
    ones = np.ones((1, whole.shape[1] - 1), np.int32)
    weights = np.where(np.arange(ones.shape[1]) < ones.shape[1] - 1, 0 if answer else 1, 1).astype(np.float32)[None]
    return TextBatch(whole[:, :-1], whole[:, 1:], weights, ones, np.arange(ones.shape[1], dtype=np.int32)[None], rows)


def _told(run: Run, examples: list[Example] | None, units: Units, found: Influence, place: int) -> dict[str, Any]:
    number = int(found.numbers_N[place])
    told: dict[str, Any] = {"number": number, "influence": float(found.on_test[place]), "self_influence": float(found.on_self[place])}
    if examples is not None:
        example = examples[number]
        return told | {"text": example.fields["text"], "label": example.label, "where": example.where}
    batch = units.make(np.array([number]), fold(0, np.array([number])))
    decode = run.tokenizer().decode
    if isinstance(batch, SourceBatch):
        return told | {
            "text": decode(batch.sources[0][batch.source_segments[0] > 0]),
            "label": decode(batch.targets[0][batch.segments[0] > 0]),
        }
    return told | {"text": decode(batch.tokens[0][batch.segments[0] > 0])}
