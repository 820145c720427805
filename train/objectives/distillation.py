"""The options of learning from another run's predictions. Nothing heavy is imported here."""

import dataclasses
import os
from typing import Any, ClassVar, Literal

from data.errors import UserError
from model.config import ModelConfig
from train.experiment import CausalLM, Experiment
from train.kinds import Adapters, Objective, check_range


@dataclasses.dataclass(frozen=True)
class Distillation(Objective):
    """A student learns what a teacher predicts, beside what its data say (Hinton et al. 2015; Sanh et al. 2019).

    L = (1 - alpha) * loss + alpha * T^2 * KL(teacher || student), both predictions at temperature T, + hidden_coefficient * distance of the
    hidden states.
    """

    home: ClassVar[str] = "train.objectives.distilled_loss:bind"

    of: Objective = CausalLM()
    """What the student learns by itself: CausalLM, MaskedLM or Supervised."""
    teacher: str = ""  # type: ignore[misc]
    """Run directory of the teacher, which has learned the same, with the same tokenizer and labels."""
    temperature: float = 2.0
    """Divides the logits of both, above 0. Higher values count more of what the teacher thinks unlikely."""
    alpha: float = 0.5
    """Weight of the teacher, 0 to 1; the data have the rest."""
    hidden: Literal["none", "cosine", "mse"] = "none"
    """Distance of the hidden states behind layers: 1 - cosine (Sanh et al. 2019), or the mean squared error (Jiao et al. 2020, eq. 8)."""
    hidden_coefficient: float = 1.0
    """With hidden: weight of that distance."""
    layers: tuple[int, ...] = ()
    """With hidden: the teacher's layer, counted from 0, that each layer of the student is compared with; -1: none. Empty: spread evenly,
    the last with the last."""
    teacher_model: tuple[ModelConfig, ...] = ()
    """The teacher's model. Filled in when the run is made."""

    def __post_init__(self):
        check_range("objective.", self, 1e-3, "temperature")
        check_range("objective.", self, 0, "hidden_coefficient")
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"objective.alpha is {self.alpha}; it must be from 0 to 1")
        if min(self.layers, default=0) < -1:
            raise ValueError(f"objective.layers is {self.layers}; give numbers from 0 on, or -1 for none")
        if self.layers and self.hidden == "none":
            raise ValueError("objective.layers says which hidden states are compared, but objective.hidden is none: set it")

    @property
    def reads(self) -> tuple[str, ...]:  # type: ignore[override]
        return self.of.reads

    @property
    def generates(self) -> bool:  # type: ignore[override]
        return self.of.generates

    @property
    def unit(self) -> Literal["token", "example", "batch"]:
        return self.of.unit

    @property
    def labels(self) -> tuple[str, ...]:
        """Of a task."""
        return getattr(self.of, "labels", ())

    def completed(self, sources: list) -> "Distillation":
        own = dataclasses.replace(self, of=self.of.completed(sources))
        if not self.teacher:
            raise UserError("objective Distillation: there is no teacher", "Give its run: --objective.teacher RUN.")
        if self.teacher_model:  # the run goes on, and keeps its teacher
            return own
        taught_by = open_teacher(self.teacher, sources)
        if own.labels or getattr(taught_by.objective, "labels", ()):
            _check_same_task(own, taught_by.objective, self.teacher)
        return dataclasses.replace(own, teacher=os.path.abspath(self.teacher), teacher_model=(taught_by.model,))


def open_teacher(teacher: str, sources: list) -> Experiment:
    """What a teacher's run is of. UserError for one with another tokenizer."""
    from train.runs.directory import open_run

    run = open_run(teacher, said=lambda line: None)
    if run.tokenizer().digest != sources[0].tokenizer().digest:
        raise UserError(f"objective.teacher: {teacher} has another tokenizer than {sources[0].path}", "Choose another teacher.")
    return run.experiment


def of_teacher(experiment: Experiment, model: ModelConfig, objective: Objective) -> Experiment:
    """A student's experiment with the teacher in its place: one that starts from nothing, and trains nothing."""
    alone: dict[str, Any] = {"start": "", "start_layers": (), "frozen": (), "adapters": Adapters()}
    return dataclasses.replace(experiment, model=model, objective=objective, **alone)


def check_same_words(teacher: str, theirs: ModelConfig, own: ModelConfig) -> None:
    """UserError for a teacher of another kind, or whose predictions are of another vocabulary."""
    for name in ("kind", "vocab_size", "logit_softcap"):
        if getattr(theirs, name) != getattr(own, name):
            raise UserError(
                f"objective.teacher: {teacher or 'the teacher'} has {name} {getattr(theirs, name)}, and the student {getattr(own, name)}",
                "Choose another teacher.",
            )
    if theirs.positions == "learned" and theirs.context_length < own.context_length:
        raise UserError(
            f"objective.teacher: {teacher or 'the teacher'} reads {theirs.context_length} tokens, and the student {own.context_length}",
            f"Set --model.context-length {theirs.context_length}.",
        )


def _check_same_task(own: Distillation, theirs: Objective, teacher: str) -> None:
    """UserError where a teacher tells other labels apart, or reads them off other vectors."""
    labels = getattr(theirs, "labels", ())
    if labels != own.labels:
        wrong = sorted({*labels} ^ {*own.labels}) or labels
        raise UserError(
            f"objective.teacher: {teacher} has other labels, or in another order: {', '.join(map(repr, wrong[:5]))}",
            "Choose a teacher of the same task, or give its labels: --objective.of.labels.",
        )
    of = theirs.of if isinstance(theirs, Distillation) else theirs
    for name in ("pool", "ngrams"):
        if (has := getattr(of, name, "")) != getattr(own.of, name, ""):
            raise UserError(f"objective.teacher: {teacher} has {name} {has}", f"Set --objective.of.{name} {has}.")
