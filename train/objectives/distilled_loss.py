"""Learning from another run's predictions."""

import dataclasses

import jax
import jax.numpy as jnp

from data.errors import UserError
from model.config import ModelConfig
from model.layers import Dense
from train.experiment import Experiment
from train.kinds import Bound, realise
from train.objectives.distillation import Distillation, check_same_words, of_teacher
from train.objectives.taught import Taught
from train.objectives.terms import Term

PROJECTION = "teacher_projection"
"""Parameters that bring hidden states to the teacher's width."""


@dataclasses.dataclass(frozen=True)
class DistilledLoss:
    """The student's loss, and how far its predictions are from those of a teacher that reads the same batch.

    Terms: those of the student's loss; `distillation`, KL(teacher || student) at the temperature, in nats; `hidden`, the distance of hidden
    states, a mean over tokens and layers. frozen["teacher"]: its parameters; it has no dropout. An evaluation is of the student alone.
    """

    own: Taught
    teacher: Taught
    options: Distillation
    pairs: tuple[tuple[int, int], ...] = ()
    """Layers of student and teacher whose outputs are compared."""

    def __call__(self, params, batch, key, *, frozen=None, carry=None):
        if key is None:
            return self.own(params, batch, None, carry=carry)  # type: ignore[operator]
        o = self.options
        streams: list[list | None] = [[], []] if self.pairs else [None, None]
        own = self.own.forward(params, batch, key, streams=streams[0])
        theirs = self.teacher.forward(jax.lax.stop_gradient(frozen["teacher"]), batch, key, dropout=False, streams=streams[1])
        terms, metrics = self.own.judged(params, batch, own)
        terms = {name: term._replace(coefficient=(1.0 - o.alpha) * term.coefficient) for name, term in terms.items()}
        total, weight = self.own.divergence(own, theirs, batch, o.temperature)
        terms["distillation"] = Term(o.alpha * o.temperature**2, total, weight)
        if self.pairs:
            terms["hidden"] = self._hidden(params, batch, *streams)
        return terms, metrics, carry

    def _hidden(self, params, batch, own, theirs) -> Term:
        """The distance of the hidden states of all pairs of layers, over tokens that are no padding."""
        there_BT = (batch.segments != 0).astype(jnp.float32)
        distance = hidden_cosine if self.options.hidden == "cosine" else hidden_mse
        total = jnp.float32(0)
        for layer, of in self.pairs:
            x_BTD = own[layer].astype(jnp.float32)
            if PROJECTION in params:
                x_BTD = _projection(theirs[of].shape[-1]).apply({"params": params[PROJECTION]}, x_BTD)
            total += (distance(x_BTD, theirs[of].astype(jnp.float32)) * there_BT).sum()
        return Term(self.options.hidden_coefficient, total / len(self.pairs), there_BT.sum())


def hidden_cosine(x_BTD, y_BTD):
    """1 - cos(x, y), [B, T]."""
    sizes_BT = jnp.square(x_BTD).sum(-1) * jnp.square(y_BTD).sum(-1)
    return 1.0 - (x_BTD * y_BTD).sum(-1) * jax.lax.rsqrt(jnp.maximum(sizes_BT, 1e-24))


def hidden_mse(x_BTD, y_BTD):
    """The mean of (x - y)^2 over the width, [B, T]."""
    return jnp.square(x_BTD - y_BTD).mean(-1)


def _projection(width: int) -> Dense:
    return Dense((width,), ("embed", "norm"), 0.02, jnp.dtype(jnp.float32), bias=False)


def pairs_of(layers: tuple[int, ...], own: int, theirs: int) -> tuple[tuple[int, int], ...]:
    """(layer of a student with `own` layers, layer of a teacher with `theirs`) of each comparison. UserError for layers that are not
    there."""
    if not layers:
        return tuple((layer, (layer + 1) * theirs // own - 1) for layer in range(own) if (layer + 1) * theirs >= own)
    if len(layers) != own:
        raise UserError(f"objective.layers names {len(layers)} layers, and the student has {own}", "Give one for each, or -1.")
    if max(layers) >= theirs:
        raise UserError(f"objective.layers: the teacher has no layer {max(layers)}", f"Its layers are 0 to {theirs - 1}.")
    return tuple((layer, of) for layer, of in enumerate(layers) if of >= 0)


def bind(options: Distillation, experiment: Experiment, shards: int) -> Bound:
    student = dataclasses.replace(experiment, objective=options.of)
    # Without a teacher yet, for a plan, it is taken to be as large as the student.
    taught_by = options.teacher_model[0] if options.teacher_model else experiment.model
    check_same_words(options.teacher, taught_by, experiment.model)
    teacher = of_teacher(experiment, taught_by, options.of)
    own, theirs = (realise(options.of, one, shards) for one in (student, teacher))
    _check(options, own, experiment.model)
    pairs = pairs_of(options.layers, experiment.model.num_layers, taught_by.num_layers) if options.hidden != "none" else ()
    loss = DistilledLoss(own.loss, theirs.loss, options, pairs)
    found = dataclasses.replace(own, loss=loss, teacher=teacher)
    width, theirs_width = experiment.model.embed_dim, taught_by.embed_dim
    if not pairs or width == theirs_width:
        return found

    def start(key):
        fresh = _projection(theirs_width).init(jax.random.fold_in(key, 2), jnp.zeros((1, width)))["params"]
        return own.start(key) | {PROJECTION: fresh}

    return dataclasses.replace(found, start=start, parts=own.parts | {"projection to the teacher": (PROJECTION,)})


def _check(options: Distillation, own: Bound, model: ModelConfig) -> None:
    """UserError where the two losses cannot be compared."""
    name, of = type(options.of).__name__, options.of
    if not getattr(own.loss, "divergence", None) or own.carry is not None or own.evaluation_carry:
        raise UserError(
            f"objective Distillation: {name} has no predictions for a teacher to give", "Choose CausalLM, MaskedLM or Supervised."
        )
    if getattr(of, "r_drop", 0) or getattr(of, "mixup", 0):
        raise UserError(
            "objective Distillation: r_drop and mixup change what the student is asked, but not its teacher", "Leave them at 0."
        )
    if options.hidden != "none" and model.kind not in ("encoder", "decoder", "any"):  # any: a plan knows no more
        raise UserError(f"objective.hidden compares layers of an encoder or a decoder; the model is a {model.kind}", "Leave it out.")
