"""A round of federated learning as a gradient: what clients changed, brought together and negated, so that any optimizer takes the step."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from data.errors import UserError
from train.devices.mesh import over_rows
from train.experiment import Experiment
from train.kinds import Objective
from train.objectives.terms import Mean
from train.step.federated.local import Update, clipped, local_update, norm_of, with_loss
from train.step.federated.options import Federated
from train.step.federated.robust import rule
from train.step.private.gradient import SECRET, UNITS_AT_ONCE, check_apart, in_units, near, noise_key, normal_like

ATTACK = 10.0
"""Times the length of an honest update."""


class FromClients(NamedTuple):
    """Rows of clients, one behind the other, as many of each. clients: int32, whose row it is; -1 for nobody."""

    rows: Any
    clients: Any


def federated(options: Federated, experiment: Experiment, unit: str) -> "Round":
    """The gradient of a round, a Round. UserError for objectives whose clients could not train by themselves."""
    name = type(experiment.objective).__name__
    if type(experiment.objective).learner != Objective.learner:
        raise UserError(f"gradient Federated: {name} makes its own rows, and clients have theirs", _INSTEAD)
    if unit == "batch" and options.local_batch < 2:
        raise UserError(f"gradient Federated: {name} compares rows, and gradient.local_batch is 1", "Give more rows.")
    if experiment.micro_batches > 1:
        raise UserError("gradient Federated: micro_batches would split clients", "Set --gradient.at-once N instead.")
    if experiment.faults.spike:
        raise UserError("gradient Federated: faults.spike would skip rounds for what single clients do", "Set --faults.spike 0.")
    if options.at_once and experiment.batch_size % options.at_once:
        raise UserError(f"gradient.at_once {options.at_once} does not divide batch_size {experiment.batch_size}", "Change one of them.")
    if options.private:
        check_apart(experiment)
    if options.private and options.quantile and 0 < 2 * _counting_noise(options, experiment) <= options.noise_multiplier:
        raise UserError("gradient.noise_multiplier is too large beside that of gradient.quantile", "Draw more clients in a round.")
    if options.unit_rows % min(options.local_batch, options.unit_rows):
        raise UserError(f"gradient.local_batch {options.local_batch} does not divide user_rows {options.user_rows}", "Change one of them.")
    return Round(options, experiment)


_INSTEAD = "Train with the gradient Exact, or choose an objective that learns from rows."


@dataclasses.dataclass(frozen=True)
class Round:
    """gradient(objective, params, batch, key, *, frozen, carry) -> (gradients, metrics, carry); batch: FromClients."""

    options: Federated
    experiment: Experiment

    def carry(self, params) -> dict[str, Any] | None:
        """What the first round is handed, given the parameters: the number of rounds and versions of the parameters, [staleness + 1, ...];
        SCAFFOLD's controls of each client, [clients, ...], and of all; the clipping norm. None for nothing."""
        o, found = self.options, dict[str, Any]()
        if o.staleness:
            found |= {"round": jnp.int32(0), "versions": _stacked(o.staleness + 1, params)}
        if o.scaffold:
            found |= {"controls": _stacked(max(o.clients, 1), params), "control": jax.tree.map(jnp.zeros_like, params)}
        return found | ({"clip": jnp.float32(o.clip)} if o.quantile else {}) or None

    def __call__(self, objective: Callable, params, batch: FromClients, key, *, frozen=None, carry=None):
        o, carry, frozen = self.options, dict(carry or {}), dict(frozen or {})
        noise = noise_key(frozen.pop(SECRET), key) if o.private else None
        rows, clients_BR = in_units(tuple(batch), o.unit_rows)
        clients_B = clients_BR[:, 0]
        if o.staleness:
            place = carry["round"] % (o.staleness + 1)
            carry["versions"] = jax.tree.map(lambda old, new: old.at[place].set(new), carry["versions"], params)
        ages_B = self._ages(carry, key, len(clients_B))
        clip = carry.get("clip", jnp.float32(o.clip))
        loss, poisoned_N = with_loss(objective, frozen), self._poisoned()

        def client(rows, number, age):
            own_key = jax.random.fold_in(key, number)
            begun, correction = params, None
            if o.staleness:
                begun = jax.tree.map(lambda old: old[(carry["round"] - age) % (o.staleness + 1)], carry["versions"])
            if o.scaffold:
                correction = jax.tree.map(lambda of_all, of_each: of_all - of_each[number], carry["control"], carry["controls"])
            found = local_update(loss, begun, rows, own_key, o, correction)
            if o.poisoned:
                found = found._replace(change=_attacked(found.change, jnp.asarray(poisoned_N)[number], own_key, o.attack))
            return clipped(found, clip)

        # Constraints of activations name the rows of a batch, which here are a client's own.
        with nn.logical_axis_rules(()):
            updates, norms_B = self._trained(client, (rows, clients_B, ages_B), clients_B >= 0)
        here_B = (updates.weight > 0).astype(jnp.float32)
        if o.private:
            deviation = clip * deviation_of(o, self.experiment)
            drawn = normal_like(updates.change, jax.random.fold_in(noise, 0), deviation, skipped=1)
            change = jax.tree.map(lambda x, n: (x.sum(0) + n) / _expected(o, self.experiment), updates.change, drawn)
        else:
            weights_B = updates.weight * jax.lax.rsqrt(1.0 + ages_B)
            change = rule(o.aggregate, o.byzantine)(updates.change, weights_B)
        metrics = jax.tree.map(lambda x: x.sum(0), updates.metrics) | {
            "clients": Mean(here_B.sum(), jnp.float32(1)),
            "update_norm": Mean(jnp.where(here_B > 0, norms_B, 0).sum(), here_B.sum()),
        }
        if o.quantile:
            carry["clip"] = self._next_clip(clip, norms_B <= clip, here_B, noise)
            metrics["clip"] = Mean(clip, jnp.float32(1))
        if o.scaffold:
            carry |= self._next_controls(carry, updates, clients_B, here_B)
        if o.staleness:
            carry["round"] += 1
        return jax.tree.map(lambda x, p: -x.astype(p.dtype), change, params), metrics, carry or None

    def _trained(self, client: Callable, inputs: tuple, drawn_B) -> tuple[Update, Any]:
        """The updates of all clients and how long they were, some clients at a time; those that were not drawn do nothing."""
        count = len(drawn_B)
        size = self.options.at_once or near(count, UNITS_AT_ONCE * jax.device_count())

        def part(arguments):
            inputs, drawn = over_rows(arguments)
            shapes = jax.eval_shape(jax.vmap(client), *inputs)
            nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
            return jax.lax.cond(drawn.any(), lambda: jax.vmap(client)(*inputs), lambda: nothing)

        parts = in_units((inputs, drawn_B), size)
        return jax.tree.map(lambda x: x.reshape(count, *x.shape[2:]), jax.lax.map(part, parts))

    def _ages(self, carry, key, count: int):
        """int32 [B]: by how many rounds each client's parameters are old."""
        if not self.options.staleness:
            return jnp.zeros(count, jnp.int32)
        ages_B = jax.random.randint(jax.random.fold_in(key, AGES), (count,), 0, self.options.staleness + 1)
        return jnp.minimum(ages_B, carry["round"])

    def _poisoned(self) -> np.ndarray:
        """bool [clients]: who works against the others."""
        o = self.options
        found = np.zeros(max(o.clients, 1), bool)
        found[np.random.default_rng(self.experiment.seed).permutation(o.clients)[: round(o.poisoned * o.clients)]] = True
        return found

    def _next_clip(self, clip, short_B, here_B, noise):
        """The clipping norm of the next round, by the noised share of updates that were no longer than it (Andrew et al. 2021,
        algorithm 1). A client counts as a half for or against, so that one more or less moves the sum by a half: what theorem 1 takes
        the noise for."""
        o, clients = self.options, jnp.maximum(here_B.sum(), 1)
        balance = ((short_B - 0.5) * here_B).sum()
        if o.private:
            balance += _counting_noise(o, self.experiment) * jax.random.normal(jax.random.fold_in(noise, 1))
            clients = _expected(o, self.experiment)
        return clip * jnp.exp(-CLIP_RATE * (balance / clients + 0.5 - o.quantile))

    def _next_controls(self, carry, updates: Update, clients_B, here_B) -> dict[str, Any]:
        """SCAFFOLD's (Karimireddy et al. 2020, eq. 4, option II): a client's control is its mean gradient of this round."""
        o = self.options
        steps_B = jnp.maximum(updates.steps, 1) * o.local_learning_rate

        def differences(change, control):
            moved = change / steps_B.reshape(-1, *(1,) * (change.ndim - 1))
            return jnp.where(here_B.reshape(moved[:, :1].shape[:1] + (1,) * (moved.ndim - 1)) > 0, -control - moved, 0)

        difference = jax.tree.map(differences, updates.change, carry["control"])
        controls = jax.tree.map(lambda old, new: old.at[clients_B].add(new), carry["controls"], difference)
        control = jax.tree.map(lambda old, new: old + new.sum(0) / o.clients, carry["control"], difference)
        return {"controls": controls, "control": control}


AGES = 1 << 30
"""What a round's key is folded with for the ages of updates; clients are folded by their numbers."""
CLIP_RATE = 0.2
"""As Andrew et al. (2021, sec. 3) recommend."""


def _expected(options: Federated, experiment: Experiment) -> int:
    return options.expected_batch or experiment.batch_size


def _counting_noise(options: Federated, experiment: Experiment) -> float:
    """Standard deviation of the noise of a count of clients (Andrew et al. 2021, sec. 3.1)."""
    return _expected(options, experiment) / 20


def deviation_of(options: Federated, experiment: Experiment) -> float:
    """Of the noise of a sum, in units of the clipping norm: more where a count is told too, so that both together cost what
    noise_multiplier says (Andrew et al. 2021, theorem 1)."""
    noise = options.noise_multiplier
    return (noise**-2 - (2 * _counting_noise(options, experiment)) ** -2) ** -0.5 if options.quantile and noise else noise


def _attacked(change, poisoned, key, attack: str):
    """What a client sends instead of its change, if it is poisoned."""
    if attack == "noise":
        size = sum(leaf.size for leaf in jax.tree.leaves(change)) ** 0.5
        false = normal_like(change, key, ATTACK * norm_of(change) / size)
    else:
        false = jax.tree.map(lambda x: -ATTACK * x, change)
    return jax.tree.map(lambda x, y: jnp.where(poisoned, y, x), change, false)


def _stacked(count: int, params):
    """Zeros [count, ...] for each leaf, whose names of axes follow."""

    def zeros(leaf):
        if isinstance(leaf, nn.meta.AxisMetadata):
            return leaf.replace_boxed(jnp.zeros((count, *leaf.value.shape), leaf.value.dtype)).add_axis(0, {nn.PARTITION_NAME: None})
        return jnp.zeros((count, *leaf.shape), leaf.dtype)

    return jax.tree.map(zeros, params, is_leaf=lambda leaf: isinstance(leaf, nn.meta.AxisMetadata))
