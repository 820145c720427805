"""Grading: short answers of students beside a reference, with the scores that teachers gave."""

import dataclasses
from typing import Any, ClassVar

from data.records.record import Record
from train.apps.education.marking import LONGEST, plain
from train.kinds import Application, check_range
from train.tasks.examples import Example
from train.tasks.similarity import Similarity, SimilarityDataset


@dataclasses.dataclass(frozen=True)
class Grading(Similarity):
    """Graded answers of students, each beside a question and a reference."""

    home: ClassVar[str] = ":GradingDataset"
    how_to_get: ClassVar[str] = "Give graded answers: --data.files answers.jsonl."
    path_fields = (*Similarity.path_fields, "encoder")

    text: str = "reference"
    """Column of the reference answer."""
    pair: str = "answer"
    """Column of the student's answer."""
    question: str = "question"
    """Column of the question, where rows have one."""
    group: str = ""
    """Column of groups of students that are to be treated alike. Empty: none are compared."""
    graders: tuple[str, ...] = ()
    """Columns of the scores of two graders, whose agreement is told beside. Empty: there are none."""
    scale: float = 5.0
    """The best score; the worst is 0."""
    step: float = 0.0
    """Scores are rounded to multiples of it. 0: they are not."""
    encoder: str = ""
    """Run of a text encoder, as it was pretrained, whose vectors compare answers beside their words. Empty: words alone."""
    coverage: float = 0.9
    """Share of the scores of teachers that intervals are to hold."""
    widest: float = 0.7
    """Width of an interval from which on a teacher looks at the answer, as a share of the scale."""
    hide: bool = True
    """Say no word of the reference that the answer or the question does not have."""

    def __post_init__(self):
        super().__post_init__()
        check_range("data.", self, 0, "coverage", high=1)
        check_range("data.", self, 0, "step", "widest")
        if not self.pair or len(self.graders) not in (0, 2):
            raise ValueError("data: an answer stands in the column data.pair, and data.graders are two columns or none")
        if self.step > self.scale:
            raise ValueError(f"data.step is {self.step}, and data.scale only {self.scale}")


class GradingDataset(SimilarityDataset):
    options: Grading

    def example(self, record: Record) -> Example:
        found = super().example(record)
        asked = record.get(self.options.question)
        fields = {name: plain(text[:LONGEST]) for name, text in found.fields.items()}
        return found._replace(fields=fields | {"question": plain(asked[:LONGEST]) if isinstance(asked, str) else ""})

    def application(self, run: Any, *, step: int | None = None, raw: bool = False) -> Application:
        from train.apps.answering import Answering
        from train.apps.education.grader import Grader

        return Grader(Answering(run, self, step=step, raw=raw))
