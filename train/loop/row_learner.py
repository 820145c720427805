"""Learning from rows that are there before the run."""

import dataclasses
import functools
from collections.abc import Callable, Iterable
from typing import Any

import jax

from data.errors import UserError
from data.loading.prefetch import Prefetch, prefetch
from data.loading.process_prefetch import ProcessPrefetch
from train.adapters.training import begun_on, joined, method_of, reference_in
from train.devices.mesh import batch_sharding, local_rows, put_batch, row_shards
from train.evaluation.totals import Evaluator
from train.experiment import Experiment
from train.kinds import Batches, Bound, Sample, Section, realise
from train.objectives.bind import bind, bind_trained, flops_of, frozen_shapes, state_of, update_of
from train.optimizers.build import make_schedule, optimizer_of
from train.runs.directory import Run
from train.runs.start import adopt, frozen_of
from train.sources.dataset import dataset_of
from train.sources.drawing import drawing_of
from train.step.state import Purpose, State, random_key
from train.step.update import compiler_options, jit_update, on_mesh

REFRESH_EVERY = 100
"""Steps between two refreshes of parameters, where an objective has some to put right."""


def make_refresh(bound: Bound, seed: int, mesh):
    """refresh(state, batch) -> state, compiled."""

    def refresh(state: State, batch) -> State:
        assert bound.refresh is not None
        params, carry = bound.refresh(state.params, batch, random_key(seed, state.step, Purpose.OBJECTIVE), state.carry)
        return dataclasses.replace(state, params=params, carry=carry)

    return on_mesh(jax.jit(refresh, donate_argnums=0, compiler_options=compiler_options(mesh.devices.flat[0].platform)), mesh)


class RowLearner:
    """A step takes the next rows of a stream, which a thread or processes prepare ahead."""

    def __init__(self, run: Run, sources: list, mesh):
        experiment = run.experiment
        self._run, self._mesh, self._sources = run, mesh, sources
        self._remarked = 0
        self._remarks: list[str] = []
        self._dataset = dataset_of(experiment)
        self._dataset.place = run.path
        whole, bound = bind(experiment, mesh), bind_trained(experiment, mesh)
        self._method, self._drawing = method_of(experiment), drawing_of(experiment)
        self._cursor = 0
        self._read_only: Any = None
        self.parameters, self.carry = bound.start, bound.carry
        self.optimizer = optimizer_of(experiment)
        self.rate = make_schedule(experiment.schedule, experiment.optimizer.learning_rate, experiment.steps)
        self.validates = self._dataset.can_validate(sources)
        self.flops_per_token = flops_of(experiment)
        how: Any = {"spike": experiment.faults.spike, "rows": experiment.batch_size}
        self._update = jit_update(update_of(experiment, bound, self.optimizer, **how), mesh)
        self._refresh = make_refresh(bound, experiment.seed, mesh) if bound.refresh else None
        frozen = self._frozen if whole.reference else None  # a teacher is not asked in evaluations
        frozen = reference_in(frozen["base"], whole.reference) if self._method and frozen else frozen
        self._evaluator = Evaluator(whole, experiment, mesh, frozen)
        self._incoming: Prefetch | None = None
        self._processes: ProcessPrefetch | None = None

    @staticmethod
    def check(experiment: Experiment, sources: list, mesh) -> None:
        bound = bind(experiment, mesh)
        realise(experiment.gradient, experiment, experiment.objective.unit)
        if (drawing := drawing_of(experiment)) is not None:
            drawing.completed(dataset_of(experiment), sources)
        if experiment.evaluation.metrics and bound.outputs is None:
            raise UserError(
                f"evaluation.metrics: {type(experiment.objective).__name__} gives no outputs that metrics could score", "Leave them out."
            )
        dataset = dataset_of(experiment)
        dataset.batches(sources)
        dataset.check(sources)

    @staticmethod
    def abstract_step(experiment: Experiment, mesh):
        bound, state = bind_trained(experiment, mesh), state_of(experiment, mesh)
        dataset, drawing = dataset_of(experiment), drawing_of(experiment)
        rows = dataset.empty(experiment.batch_size) if drawing is None else drawing.empty(dataset)
        batch = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=batch_sharding(mesh, x.ndim)), rows)
        frozen = frozen_shapes(experiment, mesh, reads_reference=bool(bound.reference))
        update = update_of(experiment, bound, optimizer_of(experiment), rows=experiment.batch_size)
        return jit_update(update, mesh, lower=True), state, (frozen, batch)

    @functools.cached_property
    def batches(self) -> Batches:
        """Made when they are asked for: data to measure on may have nothing to train on."""
        drawing = self._drawing
        made = self._dataset.batches(self._sources) if drawing is None else drawing.batches(self._dataset, self._sources)
        self._remarks += getattr(made, "remarks", ())
        if left_out := getattr(made, "left_out", 0):
            self._remarks.append(f"{left_out} samples are left out: no row has room for them")
        return made

    @property
    def padding_share(self) -> float:
        return self.batches.padding_share

    def remarks(self) -> list[str]:
        before, count = self._remarked, len(self.batches.damaged)
        said, self._remarks, self._remarked = self._remarks, [], count
        return said + ([f"{count} {self.batches.damage} so far: their places are empty"] if count > before else [])

    @property
    def waited_s(self) -> float:
        return self._incoming.waited_s if self._incoming else 0.0

    @functools.cached_property
    def _frozen(self):
        """What a step reads and does not train; read from the disk where something asks for it."""
        return frozen_of(self._run, self._mesh, self._remarks.append)

    def adopt(self, params):
        if self._method is not None:
            return begun_on(self._method, self._frozen["base"], params, self._remarks.append)
        return adopt(self._run, self._mesh, params, self._remarks.append)

    def whole(self, params):
        return params if self._method is None else joined(self._method, self._frozen["base"], params)

    def begin(self, cursor: int, between: Callable[[], None]) -> None:
        self.close()
        self._cursor, self._read_only = cursor, self._frozen
        if self._drawing is not None:
            self._drawing.begin(self._run.path)
            self._read_only = (self._read_only or {}) | self._drawing.frozen()
        size, multiple = self._run.experiment.batch_size, row_shards(self._mesh) * self._run.experiment.micro_batches

        def make(number: int):
            start = cursor + number * size
            if hasattr(self.batches, "laid"):
                rows, batch = self.batches.laid(start, size, multiple)
                return put_batch(self._mesh, batch, rows)
            return put_batch(self._mesh, lambda first, rows: self.batches.batch(start + first, rows), size)

        workers = self._dataset.workers
        self._incoming = self._made_by_processes(cursor, workers) if workers else prefetch(make, 0, depth=2)

    def _made_by_processes(self, cursor: int, workers: int) -> Prefetch:
        """A thread puts on the devices what processes make."""
        size = self._run.experiment.batch_size
        first, rows = local_rows(self._mesh, size)
        maker = self._dataset.maker(self.batches, cursor + first, size, rows)
        self._processes = processes = ProcessPrefetch(maker, 0, workers, depth=workers + 2)
        return prefetch(lambda number: put_batch(self._mesh, lambda *_: maker.whole(next(processes)), size), 0, depth=2)

    def __next__(self):
        assert self._incoming is not None
        return next(self._incoming)

    def step(self, state: State, batch) -> tuple[State, dict, int]:
        step = int(state.step) if self._refresh else 0
        state, metrics = self._update(state, self._read_only, batch)
        self._cursor += self._run.experiment.batch_size
        if self._refresh and step % REFRESH_EVERY == REFRESH_EVERY - 1:
            state = self._refresh(state, batch)
        return state, metrics, self._run.experiment.batch_size

    def evaluate(self, params, between: Callable[[], None], split: str = "validation") -> dict:
        rows = self._run.experiment.evaluation.rows
        return self._dataset.evaluate(self._evaluator, params, self._sources, split=split, rows=rows, between=between)

    def details(self):
        """Of the last evaluation, what it found of each example, where the data keeps that; else None."""
        return self._dataset.details()

    def answers(self, params, examples: list) -> list:
        """What other examples of a task are answered."""
        dataset: Any = self._dataset
        return dataset.answers(self._evaluator, params, examples, self._run.tokenizer())

    def samples(self, params) -> Iterable[Sample]:
        return self._dataset.samples(self._run, params, self._sources, self._remarks.append)

    def shows(self) -> list[Section]:
        return self._dataset.shows() + ([] if self._drawing is None else self._drawing.shows(self._cursor))

    def close(self) -> None:
        if self._incoming is not None:
            self._incoming.close()
            self._incoming = None
        if self._processes is not None:
            self._processes.close()
            self._processes = None
