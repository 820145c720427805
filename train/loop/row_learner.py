"""Learning from rows that are there before the run: text, demonstrations, comparisons."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax

from data.errors import UserError
from data.loading.prefetch import Prefetch, prefetch
from data.loading.process_prefetch import ProcessPrefetch
from data.media.batches import MediaBatches, StepMaker
from data.text.batches import Batches
from model.decoding.generate import Sampling
from train.devices import hosts
from train.devices.mesh import local_rows, put_batch
from train.evaluation.evaluate import evaluate_corpora, evaluate_examples, make_evaluate
from train.evaluation.media import evaluate_media
from train.experiment import Experiment, TextData
from train.explain import occlusion as looks
from train.generation import media as writing
from train.generation.about_media import sample_answers
from train.generation.text import make_generator
from train.loop.learner import Sample
from train.objectives.make import make_objective
from train.optimizers.build import make_schedule, optimizer_of
from train.planning.flops import training_flops_per_token
from train.rl.options import RewardModelling
from train.runs.parameters import carry_of, parameters_of
from train.runs.runs import Run, text_data
from train.runs.start import adopt, frozen_of
from train.sources.examples import ExampleBatches
from train.sources.media import judged, make_media_batches, shapes_of
from train.sources.media_options import ENCODER_OBJECTIVES, MediaData
from train.step.state import Purpose, State, random_key
from train.step.update import compiler_options, jit_update, make_update, on_mesh


def make_batches(experiment: Experiment, corpora) -> Batches | ExampleBatches | MediaBatches:
    """Training rows, in an order decided by the seed: the same for the same seed, on any number of hosts."""
    if isinstance(experiment.data, MediaData):
        return make_media_batches(experiment, [source.source for source in corpora], corpora[0].tokenizer())
    if not isinstance(experiment.data, TextData):
        return ExampleBatches(experiment, corpora, "train")
    data = text_data(experiment)
    for corpus in corpora:
        if not corpus.targets("train"):
            raise UserError(f"{corpus.path}: holds no token to learn in its training split", "Prepare more text, or leave it out.")
    batches = Batches(
        corpora,
        weights=data.weights,
        split="train",
        context_length=experiment.model.context_length,
        seed=experiment.seed,
        max_damaged=data.max_damaged,
        fim_rate=data.fim_rate,
    )
    if batches.ids > experiment.model.vocab_size:
        raise UserError(
            f"data.fim_rate needs the token id {batches.ids - 1}, but model.vocab_size is {experiment.model.vocab_size}",
            "Set --model.vocab-size 0, which takes the tokenizer's, or --data.fim-rate 0.",
        )
    return batches


REFRESH_EVERY = 100
"""Steps between two looks of an objective at its parameters, where it has something to put right in them (`refresh`)."""


def make_refresh(objective, seed: int, mesh):
    """refresh(state, batch) -> state, compiled."""

    def refresh(state: State, batch) -> State:
        params, carry = objective.refresh(state.params, batch, random_key(seed, state.step, Purpose.OBJECTIVE), state.carry)
        return dataclasses.replace(state, params=params, carry=carry)

    return on_mesh(jax.jit(refresh, donate_argnums=0, compiler_options=compiler_options(mesh.devices.flat[0].platform)), mesh)


def check_samples(experiment: Experiment, corpora: list) -> None:
    """UserError for a prompt of `samples` that the data's tokenizer, or the model, does not know: it would be found at the first sample."""
    if not experiment.samples.tokens or not _writes_text(experiment):
        return
    tokenizer = corpora[0].tokenizer()
    for prompt in experiment.samples.prompts:
        try:
            ids = tokenizer.encode(prompt)
        except UserError as error:
            raise UserError(
                f"samples.prompts: {prompt!r}: {str(error).splitlines()[0]}", "Give others with --samples.prompts, or --samples.tokens 0."
            ) from None
        if ids.size and ids.max() >= experiment.model.vocab_size:
            raise UserError(
                f"samples.prompts: {prompt!r} holds id {ids.max()}; the model has {experiment.model.vocab_size}", "Give others."
            )


def _writes_text(experiment: Experiment) -> bool:
    """Whether samples are continuations of samples.prompts."""
    return not isinstance(experiment.data, MediaData) and not isinstance(experiment.objective, (RewardModelling, *ENCODER_OBJECTIVES))


def _can_validate(experiment: Experiment, corpora: list) -> bool:
    """Whether any of the data is kept from training."""
    if isinstance(experiment.data, MediaData):
        return bool(judged(experiment, corpora))
    return not isinstance(experiment.data, TextData) or any(corpus.targets("validation") for corpus in corpora)


class RowLearner:
    """A step takes the next rows of a stream, which a thread prepares ahead."""

    def __init__(self, run: Run, corpora: list, mesh):
        experiment = run.experiment
        self._run, self._mesh, self._corpora = run, mesh, corpora
        objective = make_objective(experiment, mesh)
        self.parameters, self.carry = parameters_of(experiment), carry_of(experiment)
        self.optimizer = optimizer_of(experiment)
        self.rate = make_schedule(experiment.schedule, experiment.optimizer.learning_rate, experiment.steps)
        self.validates = _can_validate(experiment, corpora)
        self.flops_per_token = None  # of media: encoders work on patches, which no count of tokens tells of
        if not isinstance(experiment.data, MediaData):
            self.flops_per_token = training_flops_per_token(experiment.model, experiment.model.context_length)
        self._frozen = frozen_of(run, mesh)
        options: dict[str, Any] = {
            "micro_batches": experiment.micro_batches,
            "ema_decay": experiment.ema_decay,
            "spike": experiment.faults.spike,
        }
        self._update = jit_update(make_update(objective, self.optimizer, seed=experiment.seed, **options), mesh)
        self._refresh = make_refresh(objective, experiment.seed, mesh) if hasattr(objective, "refresh") else None
        self._evaluate = make_evaluate(objective, mesh, self._frozen)
        self._incoming: Prefetch | None = None
        self._processes: ProcessPrefetch | None = None
        self._remarked = 0
        self._remarks: list[str] = []

    @functools.cached_property
    def batches(self) -> Batches | ExampleBatches | MediaBatches:
        """Made when they are asked for: data to measure on may have nothing to train on."""
        made = make_batches(self._run.experiment, self._corpora)
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

    def adopt(self, params):
        return adopt(self._run, self._mesh, params, self._remarks.append)

    def begin(self, cursor: int) -> None:
        self.close()
        size = self._run.experiment.batch_size

        def make(number: int):
            start = cursor + number * size
            return put_batch(self._mesh, lambda first, rows: self.batches.batch(start + first, rows), size)

        data = self._run.experiment.data
        workers = data.workers if isinstance(data, MediaData) else 0
        self._incoming = self._made_by_processes(cursor, workers) if workers else prefetch(make, 0, depth=2)

    def _made_by_processes(self, cursor: int, workers: int) -> Prefetch:
        """A thread puts on the devices what processes make."""
        assert isinstance(self.batches, MediaBatches)
        size = self._run.experiment.batch_size
        first, rows = local_rows(self._mesh, size)
        maker = StepMaker(self.batches, cursor + first, size, rows)
        self._processes = processes = ProcessPrefetch(maker, 0, workers, depth=workers + 2)
        return prefetch(lambda number: put_batch(self._mesh, lambda *_: maker.whole(next(processes)), size), 0, depth=2)

    def __next__(self):
        assert self._incoming is not None
        return next(self._incoming)

    def step(self, state: State, batch) -> tuple[State, dict, int]:
        step = int(state.step) if self._refresh else 0
        state, metrics = self._update(state, self._frozen, batch)
        if self._refresh and step % REFRESH_EVERY == REFRESH_EVERY - 1:
            state = self._refresh(state, batch)
        return state, metrics, self._run.experiment.batch_size

    def evaluate(self, params, between: Callable[[], None]) -> dict:
        experiment = self._run.experiment
        of = (self._evaluate, params, self._corpora, experiment, self._mesh)
        if isinstance(experiment.data, MediaData):
            return evaluate_media(*of, rows=experiment.evaluation.rows, between=between)
        if isinstance(experiment.data, TextData):
            return evaluate_corpora(*of, rows=experiment.evaluation.rows, between=between)
        return evaluate_examples(*of, rows=experiment.evaluation.rows, between=between)

    def samples(self, params) -> list[Sample]:
        """Continuations of the run's sample prompts; of a run on media, what it writes about some."""
        wanted = self._run.experiment.samples
        if isinstance(self._run.experiment.objective, ENCODER_OBJECTIVES):
            return []
        if isinstance(self._run.experiment.data, MediaData):
            if hosts.first():
                self._draw(params)
            return sample_answers(self._run, params, self._corpora)
        prompts = [prompt for prompt in wanted.prompts if prompt or self._run.document_end is not None]
        if not prompts or not _writes_text(self._run.experiment):
            return []
        generator = make_generator(self._run, params)
        sampling = Sampling(temperature=wanted.temperature)
        found = generator.generate(prompts, tokens=wanted.tokens, sampling=sampling, seed=self._run.experiment.seed)
        return [Sample(completion.prompt, completion.text) for completion in found]

    def _draw(self, params) -> None:
        """Pictures of what answers rest on and of what the model writes; a disk that does not take them is told by `remarks`."""
        of, plots = (self._run.experiment, params, self._corpora, self._run.tokenizer()), self._run.path / "plots"
        try:
            looks.draw_looks(looks.find_looks(*of), shapes_of(self._run.experiment), plots / looks.NAME)
            writing.draw_written(*of, plots / writing.NAME)
        except OSError as error:
            self._remarks.append(f"WARNING: no pictures of samples ({error.strerror or error}); training goes on")

    def close(self) -> None:
        if self._incoming is not None:
            self._incoming.close()
            self._incoming = None
        if self._processes is not None:
            self._processes.close()
            self._processes = None
