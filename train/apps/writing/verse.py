"""Chinese verse: poems with the tunes that they are written to; then tunes in, poems out that keep their shape, tones and rhymes."""

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np

from data.errors import UserError
from data.records.record import Record
from model.decoding.sampling import Sampling
from train.apps.answering import DRAWN, ID, in_place, number_in, sampling_in, truth_in
from train.apps.writing.tunes import AGREED, FEWEST, RHYMING, Metre, Tune, tunes
from train.kinds import Application, Column, Section
from train.tasks.examples import Example, column
from train.tasks.metrics.diversity import distinct, self_bleu
from train.tasks.metrics.scores import Scores, mean_of
from train.tasks.sequence import Measure, SequenceDataset, SequenceToSequence

MOST = 8
"""Poems that a row may ask for."""
KEPT = 50
"""Poems that are remembered, for what they have in common."""


@dataclasses.dataclass(frozen=True)
class Verse(SequenceToSequence):
    """Poems with their titles and tunes."""

    home: ClassVar[str] = ":VerseDataset"
    how_to_get: ClassVar[str] = "Give poems: --data.files poems.jsonl, with form, title and lines."

    source: str = "form"
    """Column of the tune's name; it may be empty."""
    title: str = "title"
    """Column of the title; it may be empty."""
    target: str = "lines"
    """Column of the lines: a list of texts, or one text with a line a line."""
    measures: tuple[Measure, ...] = ()
    """What poems are scored by beside their form: see SequenceToSequence. There is no right poem, so nothing by default."""
    language: str = "zh"
    """Language of the poems: their characters are counted."""
    written: int = 160
    """Tokens of a poem, at most."""
    length: int = 320
    """Tokens of a row; several short poems share one."""


class VerseDataset(SequenceDataset):
    options: Verse
    own_prompt = "{source}\n{title}\n"
    talks = True
    changeable = ()

    def example(self, record: Record) -> Example:
        o = self.options
        source, title = (column(record, name, empty=True) if record.get(name) is not None else "" for name in (o.source, o.title))
        fields = {"source": source.strip(), "title": title.strip()}
        if o.target not in record:
            return Example(fields, None, record.where)
        given = record[o.target]
        text = "\n".join(given) if isinstance(given, list) and all(isinstance(one, str) for one in given) else given
        if not isinstance(text, str) or not text.strip():
            raise UserError(f"{record.where}: {o.target} holds no lines", "Give a list of texts.")
        return Example(fields, (text.strip(),), record.where)

    def score(self, examples: Sequence[Example], answers: Sequence[Any]):
        """Of tunes that the examples themselves tell: the share of poems in their shape, and of their tones and rhymes."""
        known = tunes([(one.fields["source"], one.label[0]) for one in examples], fewest=5)
        kept = [
            known[one.fields["source"]].obeyed(answer)
            for one, answer in zip(examples, answers, strict=True)
            if one.fields["source"] in known
        ]
        found = super().score(examples, answers) if self.options.measures else Scores({})
        measures = {name: mean_of([float(one[name]) for one in kept]) for name in ("shape", "tones", "rhymes")} if kept else {}
        values = {name: float(np.mean([one[name] for one in kept])) for name in measures}
        return found._replace(values={**found.values, **values}, measures={**found.measures, **measures})

    def application(self, run: Any, *, step: int | None = None, raw: bool = False) -> "Poet":
        from train.apps.answering import Answering

        return Poet(Answering(run, self, step=step, raw=raw))


# --------------------------------------------------------------------------------------------------------------------- the poet


class _Asked(NamedTuple):
    example: Example
    tune: Tune | None
    number: int
    sampling: Sampling
    seed: int


class Poet(Application):
    """Poems to tunes of which the run's poems had enough; each character is drawn among those that keep the tune's shape, tones and
    rhymes. Without a tune, as the model likes."""

    at_once = 8

    def __init__(self, answering: Any):
        self._answering, self.reads = answering, answering.reads
        self.text = answering.dataset.options.source
        learned = answering.learned(self._learn, of=[FEWEST, AGREED, RHYMING])
        self._tunes = {name: Tune(one["shape"], tuple(one["tones"]), tuple(one["rhymes"]), one["poems"]) for name, one in learned.items()}
        tokenizer = answering.tokenizer
        if getattr(tokenizer, "kind", "") != "char":
            raise UserError(f"{answering.run.path}: its tokens are not single characters", "Train with a tokenizer of the kind char.")
        self._characters: str = tokenizer.characters
        self._end: int = tokenizer.specials["document_end"]
        self._kept: list[float] = [0.0, 0.0, 0.0]
        self._count, self._written, self._poems = 0, 0, list[str]()

    def _learn(self) -> dict[str, Any]:
        examples = self._answering.learned_from()
        return {name: tune._asdict() for name, tune in tunes([(one.fields["source"], one.label[0]) for one in examples]).items()}

    @property
    def columns(self) -> dict[str, Column]:
        o, some = self._answering.dataset.options, ", ".join([*self._tunes][:5])
        return (
            {
                o.source: Column(f"The tune, such as {some}." if some else "The tune."),
                o.title: Column("The title."),
                "free": Column("Write without the form of the tune.", "truth"),
            }
            | DRAWN
            | ID
        )

    @property
    def example(self) -> dict[str, Any]:
        return {self.text: next(iter(self._tunes))} if self._tunes else {self.text: "", "free": True}

    def answers(self, rows: Sequence[Record]) -> list[dict[str, Any]]:
        return in_place(rows, self._read, lambda asked: [self._line(one) for one in asked])

    def reply(self, turns: Sequence[str]) -> dict[str, Any]:
        with self.forgetting():
            line = self.answers([Record({self.text: turns[-1].strip()}, "message")])[0]
        return line | {"answer": line["error"] if "error" in line else line["text"]}

    def _read(self, row: Record) -> _Asked:
        dataset = self._answering.dataset
        example = dataset.example(Record({name: value for name, value in row.items() if name != dataset.options.target}, row.where))
        name = example.fields["source"]
        free = truth_in(row, "free")
        if name and name not in self._tunes and not free:
            known = ", ".join(sorted(self._tunes)[:30])
            raise UserError(f"{row.where}: no tune {name!r}: there are {known or 'none'}; or give free: true", "Give one of them.")
        count, seed = int(number_in(row, "n", 1, 1, MOST, whole=True)), int(number_in(row, "seed", 0, 0, 2**31 - 1, whole=True))
        sampling = sampling_in(row, 1.0)
        self._answering.checked(example)
        return _Asked(example, None if free else self._tunes.get(name), count, sampling, seed)

    def _line(self, asked: _Asked) -> dict[str, Any]:
        size = self._answering.vocabulary
        forms = [Metre(asked.tune, self._characters, self._end, size) for _ in range(asked.number)] if asked.tune else ()
        draws = [(asked.seed, number) for number in range(asked.number)]
        written = self._answering.continued([asked.example] * asked.number, sampling=asked.sampling, draws=draws, forms=forms)
        poems = []
        for one in written:
            text = one.text.strip()
            poem: dict[str, Any] = {"lines": text.split("\n"), "log_prob": round(float(np.sum(one.log_probs)), 3)}
            own = self._tunes.get(asked.example.fields["source"])
            if own is not None:
                poem |= own.obeyed(text)
                self._kept = [total + float(poem[name]) for total, name in zip(self._kept, ("shape", "tones", "rhymes"), strict=True)]
                self._count += 1
            self._written += 1
            self._poems = [*self._poems, text][-KEPT:]
            poems.append(poem)
        best = max(poems, key=lambda one: one["log_prob"])
        return {"text": "\n".join(best["lines"]), "poems": poems}

    def state(self) -> Any:
        return {"kept": self._kept, "count": self._count, "written": self._written, "poems": self._poems}

    def restore(self, state: Any) -> None:
        self._kept, self._count, self._poems = list(state["kept"]), state["count"], list(state["poems"])
        self._written = state["written"]

    def summary(self) -> dict[str, Any]:
        """Of poems to tunes the shares of shapes, tones and rhymes that are kept; of the last 50 poems distinct-2 and self-BLEU."""
        found: dict[str, Any] = {"poems": self._written}
        if self._count:
            found |= {name: total / self._count for name, total in zip(("shape", "tones", "rhymes"), self._kept, strict=True)}
        if len(self._poems) > 1:
            found |= {"distinct_2": distinct(self._poems, 2), "self_bleu": self_bleu(self._poems)}
        return found

    def sections(self) -> list[Section]:
        values = self.summary_rows()
        known = [[name, str(one.poems), one.shape.replace("\n", " ")] for name, one in sorted(self._tunes.items())]
        return [
            Section("Verse: what was written", {}, ("", "value"), values),
            Section("Verse: tunes", {}, ("tune", "poems", "shape"), known),
        ]
