"""The steps of a run whose gradients come from clients elsewhere."""

import contextlib
import dataclasses
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from data.errors import UserError
from train.adapters.options import Tuning
from train.bridge.adapters import digest_of
from train.checkpoints.journal import Journal
from train.devices import hosts
from train.experiment import Experiment, MeshShape
from train.federated.added import FILE, Added
from train.federated.client import without_files
from train.federated.exchange import Again, Exchange, Gain
from train.federated.messages import PROTOCOL, Malformed, flat, shapes_of, tree_of
from train.federated.network import POLL, check_encrypted, listening
from train.federated.options import Gathered, Network
from train.generation.chat import FILE as CHAT
from train.kinds import Objective, realise
from train.loop.row_learner import RowLearner
from train.objectives.bind import bind, bind_trained, state_of, update_of
from train.objectives.terms import Mean
from train.optimizers.build import optimizer_of
from train.runs.classes import source_of
from train.runs.directory import Run
from train.runs.serialize import FORMAT, parts_of, to_json
from train.runs.start import start_parameters
from train.step.federated.robust import rule
from train.step.state import State
from train.step.update import jit_update

LAST_WORDS = 5.0
"""Seconds for which clients are waited for at the end, to be told that it is one."""


class Gathering(NamedTuple):
    """What stands for the rows of a step. change: like the parameters. loss, weight, clients: sums, float32."""

    change: Any
    loss: Any
    weight: Any
    clients: Any


def gathered(options: Gathered, experiment: Experiment, unit: str):
    """gradient(...) of a Gathering: the change, negated."""
    name = type(experiment.objective).__name__
    if type(experiment.objective).learner != Objective.learner:
        raise UserError(f"gradient Gathered: {name} makes its own rows, and clients have theirs", "Choose one that learns from rows.")
    if experiment.objective.teacher:
        raise UserError("gradient Gathered: a teacher would have to be with every client", "Leave objective.teacher out.")
    if experiment.micro_batches > 1 or experiment.faults.spike:
        raise UserError("gradient Gathered: micro_batches and faults.spike are of rows, of which the server has none", "Leave them out.")

    def gradient(objective, params, batch: Gathering, key, *, frozen=None, carry=None):
        one = np.float32(1)
        metrics = {"loss": Mean(batch.loss, batch.weight), "clients": Mean(batch.clients, one)}
        return jax.tree.map(lambda p, x: -x.astype(p.dtype), params, batch.change), metrics, carry

    return gradient


class ServerLearner(RowLearner):
    """A step is a round: clients get the parameters and send what they changed. The server's own files serve evaluations alone."""

    def __init__(self, run: Run, sources: list, mesh):
        super().__init__(run, sources, mesh)
        self._options: Gathered = run.experiment.gradient  # type: ignore[assignment]
        self._open = contextlib.ExitStack()
        self._exchange: Exchange | None = None
        self._between: Callable[[], None] = lambda: None

    @staticmethod
    def check(experiment: Experiment, sources: list, mesh) -> None:
        options: Any = experiment.gradient
        bound = bind(experiment, mesh)
        realise(options, experiment, experiment.objective.unit)
        check_encrypted(options.network.address, bool(options.network.folder))
        if source_of(parts_of(experiment)) is not None:
            raise UserError("gradient Gathered: clients have no classes of a config file", "Use classes of Omnia alone.")
        if bound.reference or bound.carry is not None or bound.refresh is not None:
            name = type(experiment.objective).__name__
            raise UserError(f"gradient Gathered: {name} needs more than its rows", "Choose another objective.")
        if hosts.count() > 1:
            raise UserError("gradient Gathered: the server is one process", "Start one.")

    @staticmethod
    def abstract_step(experiment: Experiment, mesh):
        bound, state = bind_trained(experiment, mesh), state_of(experiment, mesh)
        number = jax.ShapeDtypeStruct((), np.float32)
        change = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, np.float32, sharding=x.sharding), state.params)
        update = update_of(experiment, bound, optimizer_of(experiment), rows=experiment.batch_size)
        return jit_update(update, mesh, lower=True), state, (None, Gathering(change, number, number, number))

    @property
    def padding_share(self) -> float:
        return 0.0

    def remarks(self) -> list[str]:
        said, self._remarks = self._remarks, []
        return said

    def begin(self, cursor: int, between: Callable[[], None]) -> None:
        self._between = between
        if self._exchange is None:
            experiment, network = self._run.experiment, self._options.network
            shapes = shapes_of(state_of(experiment, self._mesh).params)
            exchange = Exchange(self._options, shapes, self._hello(), Added(self._run.path / FILE))
            handlers = {
                "join": lambda name, message: _joined(exchange, message),
                "next": lambda name, message: exchange.next(name, POLL),
                "alive": lambda name, message: exchange.alive(name),
                "skip": lambda name, message: exchange.skip(name),
                "send": lambda name, message: {"used": exchange.take(name, message)},
            }
            port = self._open.enter_context(listening(network.address, network.folder, handlers))
            self._remarks.append(f"waiting for {network.least} clients or more at port {port}")
            self._exchange = exchange

    def _hello(self) -> dict[str, Any]:
        """What a client needs once: everything but where the server keeps its things."""
        experiment = self._run.experiment
        started = start_parameters(self._run, self._mesh) if isinstance(experiment.adapters, Tuning) else None
        tokenizer = {file.name: file.read_bytes() for file in sorted((self._run.path / "tokenizer").iterdir()) if file.is_file()}
        chat = self._run.path / CHAT
        return {
            "format": FORMAT,
            "run": self._run.identity,
            "experiment": to_json(for_clients(experiment)),
            "tokenizer": tokenizer,
            "chat": chat.read_bytes() if chat.is_file() else b"",
            "base": "" if started is None else digest_of(started),
        }

    def __next__(self):
        return None

    def step(self, state: State, batch) -> tuple[State, dict, int]:
        assert self._exchange is not None
        number, size = int(state.step), self._run.experiment.batch_size
        params = flat(jax.device_get(state.params))
        while True:
            try:
                gain = self._exchange.round(number, params, size, self._between)
                break
            except Again as error:
                self._remarks += [] if str(error) in self._remarks else [str(error)]
                time.sleep(1.0)
        self._remarks += [f"round {number}: the update of {name} is not used: {why}" for name, why in gain.rejected.items()]
        places = jax.tree.map(lambda leaf: leaf.sharding, state.params)
        change = jax.device_put(tree_of(_together(gain, self._options)), places)
        numbers = (np.float32(value) for value in (gain.loss, gain.weight, gain.clients))
        state, metrics = self._update(state, None, Gathering(change, *numbers))
        self._cursor += size
        return state, metrics, size

    def close(self) -> None:
        if self._exchange is not None:
            saved = Journal(self._run.path / "checkpoints").steps()
            if saved and saved[-1] >= self._run.experiment.steps:  # until then a server that is killed needs its clients again
                self._exchange.close()
            self._exchange.say_goodbye(LAST_WORDS)
        self._open.close()


def for_clients(experiment: Experiment) -> Experiment:
    """The experiment without the server's paths."""
    gradient = dataclasses.replace(experiment.gradient, network=Network(least=experiment.gradient.network.least))  # type: ignore[attr-defined, call-arg]
    return dataclasses.replace(experiment, start="", data=without_files(experiment.data), gradient=gradient, mesh=MeshShape())


def _joined(exchange: Exchange, message: dict[str, Any]) -> dict[str, Any]:
    if (message.get("format"), message.get("protocol")) != (FORMAT, PROTOCOL):
        raise Malformed(f"the server has format {FORMAT} and protocol {PROTOCOL}: use the same version of Omnia")
    return exchange.hello


def _together(gain: Gain, options: Gathered):
    """One change of many, by the rule that the options name. Rules but the mean do not believe what clients say they weigh."""
    weights = gain.weights if options.aggregate == "mean" else np.ones_like(gain.weights)
    found = rule(options.aggregate, options.byzantine)(gain.changes, weights)
    return {name: np.asarray(value) for name, value in found.items()}
