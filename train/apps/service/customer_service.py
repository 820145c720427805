"""Customer service: questions of a log become intents with templates, others are answered by quoted passages, and some go to a person."""

import contextlib
import dataclasses
import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np

from data.anonymize.surrogates import Key
from data.anonymize.text import Anonymizer
from data.errors import UserError
from data.records.record import Record, is_number
from data.records.rows import read_records
from train.apps.bm25 import WordIndex
from train.apps.confidence import NEVER, Calibration, familiarity, tempered, threshold
from train.kinds import Application, Column, Section, check_range
from train.tasks.classification import Classification, ClassificationDataset
from train.tasks.examples import Example, column
from train.tasks.tagging import open_tagger

SLOT, BRACE = re.compile(r"\{(\w+)\}"), re.compile(r"[{}]")
SENTENCE = re.compile(r"(?<=[.!?])(?=\s)|(?<=[。！？])")
"""Where one ends, and what follows may begin with spaces."""
LEAST = 0.5
"""An intent that is not likelier than all others together is not believed, however easy the questions were that were held out."""
SAME = 0.8
"""Score from which on a passage was written for this very question: it then answers, whatever intent is believed."""
LIKELY = 0.6
"""Of two intents together, from which on they are asked back about."""
REFUSED = re.compile(
    r"\b(?:i|we)(?:\s+(?:do not|don['’]?t|no longer|am not|are not)|['’](?:m|re) not)\s+(?:really\s+|even\s+|actually\s+)?"
    r"(?:want|wish|intend|plan|like|going|planning)\s+to\s+\w|我们?(?:真的|现在|已经)?不(?:想|要(?!紧)|需要|打算|希望)",
    re.IGNORECASE,
)
"""Of what somebody does not want to do. An intent that no question of the log refuses so is then not believed."""
CONFUSED = 20
"""Pairs of intents on the page, those that are taken for each other most often."""
LONGEST_VALUE = 200
"""Characters of what fills a slot in a conversation."""
WAITING = 10_000
"""Conversations that are remembered; the longest ago is forgotten."""
SHOWN = 50
"""Questions without an answer on the page."""


@dataclasses.dataclass(frozen=True)
class CustomerService(Classification):
    """A log of questions and what they were about, and what is answered to each."""

    home: ClassVar[str] = ":ServiceDataset"
    how_to_get: ClassVar[str] = "Give a log of questions with their intents: --data.files log.jsonl."
    path_fields = (*Classification.path_fields, "templates", "passages", "encoder", "slots")

    label: str = "intent"
    """Column of the intent."""
    templates: str = ""
    """File of answers: intent, and answer with {slot} for what has to be filled in. Read anew by each process: a new answer needs no
    training."""
    passages: str = ""
    """File of passages for questions of no intent: id, answer and, if there are these, question and link. Read anew, too."""
    encoder: str = ""
    """Run of a text encoder whose vectors find passages, beside their words. Empty: words alone."""
    slots: str = ""
    """Run of Tagging data, which finds what fills slots in a question: tags are named as slots are. Empty: rows give them."""
    nobody: str = ""
    """Label of questions that are about none of the others, in a log that has some. Empty: there are none."""
    precision: float = 0.95
    """An intent is believed from the confidence on at which so many answers to questions held out were right."""
    unfamiliar: float = 0.05
    """Share of the questions held out, the least familiar, below whose familiarity no intent is believed, 0 to 1. 0: any may be."""
    found: float = 0.35
    """Score, 0 to 1, from which on a passage answers."""
    unsure: str = "Is it about {first}, or about {second}?"
    """What is asked back where two intents are likely."""
    ask: str = "Please tell me: {slot}."
    """How what is missing for an answer is asked for."""
    human: str = "I am not sure. I hand this over to a colleague."
    """What is said where nothing is."""

    def __post_init__(self):
        super().__post_init__()
        check_range("data.", self, 0, "found", "precision", "unfamiliar", high=1)
        if self.several or self.pair:
            raise ValueError("data: a question has one intent and no pair")
        for name, known in (("unsure", {"first", "second"}), ("ask", {"slot"}), ("human", set())):
            said = getattr(self, name)
            if {*SLOT.findall(said)} - known or BRACE.search(SLOT.sub("", said)):
                raise ValueError(f"data.{name} has braces that nothing fills: {said!r}")


class ServiceDataset(ClassificationDataset):
    options: CustomerService
    talks = True

    def check(self, sources: list) -> None:
        super().check(sources)
        templates = read_templates(self.options.templates, self.label_names)
        read_passages(self.options.passages)
        if self.options.slots:
            kinds = open_tagger(self.options.slots)[1].kinds
            if templates and not {*kinds} & {slot for answer in templates.values() for slot in SLOT.findall(answer)}:
                raise UserError(
                    f"data.slots: {self.options.slots} finds {', '.join(kinds)}, and no answer has a slot of such a name",
                    "Name the slots of answers as its tags.",
                )

    def application(self, run: Any, *, step: int | None = None, raw: bool = False) -> "Service":
        from train.apps.answering import Answering

        tagger = Answering(*open_tagger(self.options.slots)) if self.options.slots else None
        return Service(Answering(run, self, step=step, raw=raw), tagger)


# ------------------------------------------------------------------------------------------------------------------ what is answered


def read_templates(path: str, intents: Sequence[str]) -> dict[str, str]:
    """The answer of each intent that has one. UserError for an intent that is not known, or has two."""
    found: dict[str, str] = {}
    for record in read_records(path) if path else ():
        intent, answer = column(record, "intent"), column(record, "answer")
        if intent in found:
            raise UserError(f"{record.where}: a second answer for {intent!r}", "Give each intent one.")
        if BRACE.search(SLOT.sub("", answer)):
            raise UserError(f"{record.where}: a brace in the answer that is no slot", "Write slots as {name}, of letters, digits and _.")
        if intents and intent not in intents:
            raise UserError(f"{record.where}: no intent {intent!r}", f"There are {', '.join(list(intents)[:20])} ...")
        found[intent] = answer
    return found


class Passage(NamedTuple):
    """question: what it answers, or "" for a text that was not written as an answer."""

    id: Any
    question: str
    answer: str
    link: str


def read_passages(path: str) -> list[Passage]:
    """UserError for two of one id."""
    found: dict[Any, Passage] = {}
    for record in read_records(path) if path else ():
        name = record.get("id", record.where)
        if not isinstance(name, str) and not is_number(name):
            raise UserError(f"{record.where}: its id is no text or number", "Give each passage one of its own.")
        if name in found:
            raise UserError(f"{record.where}: a second passage {name!r}", "Give each an id of its own.")
        link = record.get("link") or ""
        question = column(record, "question") if record.get("question") else ""
        found[name] = Passage(name, question, column(record, "answer").strip(), str(link).strip())
    return [*found.values()]


class Passages:
    """Passages, found by words and by meaning: one with a question by that and by all of it, another by its words and nearest sentence."""

    def __init__(self, passages: list[Passage], encoder: Any = None):
        """encoder: texts to vectors of unit length, or None."""
        self.passages, self._encoder = passages, encoder
        self._index = WordIndex([passage.question or passage.answer for passage in passages])
        if encoder is None or not passages:
            return
        first = [[passage.question] if passage.question else _sentences(passage.answer) for passage in passages]
        self._begins_N = np.cumsum([0, *map(len, first[:-1])])
        self._nearest_SD = encoder([text for own in first for text in own])
        self._asked_N = np.array([bool(passage.question) for passage in passages])
        wholes = [f"{passage.question} {passage.answer}" for passage in passages if passage.question]
        self._wholes_AD = encoder(wholes) if wholes else self._nearest_SD[:0]

    def scores(self, questions: Sequence[str]) -> np.ndarray:
        """float64 [Q, N], 0 to 1: words alone, or with vectors the mean of the nearness to the passage's question, to all of it, and half
        of words; of a passage without a question the mean of the nearness to its nearest sentence and of words."""
        words_QN = np.array([self._index.shares(question) for question in questions]).reshape(len(questions), len(self.passages))
        if self._encoder is None or not self.passages or not questions:
            return words_QN
        asked_QD = self._encoder(list(questions))
        near_QN = np.maximum.reduceat(np.clip(asked_QD @ self._nearest_SD.T, 0, 1), self._begins_N, axis=1)
        found_QN = (near_QN + words_QN) / 2
        whole_QA = np.clip(asked_QD @ self._wholes_AD.T, 0, 1)
        found_QN[:, self._asked_N] = (near_QN[:, self._asked_N] + whole_QA + words_QN[:, self._asked_N] / 2) / 2.5
        return found_QN


def _sentences(text: str) -> list[str]:
    """At least one."""
    return [sentence for sentence in map(str.strip, SENTENCE.split(text)) if sentence] or [text]


# ------------------------------------------------------------------------------------------------------------------ the service


class Service(Application):
    """Answers of four routes, each with what it rests on.

    template: the intent is believed, and has an answer, whose slots are filled from the row's `slots` and its text, or asked for.
    retrieved: a passage is near enough; its words are quoted, with their places in it, and those of a second one that is as near and says
    something else. unsure: two intents are likely, and are named. human: none of these. Numbers and addresses of persons in a question are
    masked in all that is written. Rows of one `conversation` belong together: what was asked for is taken from the next.
    """

    def __init__(self, answering: Any, tagger: Any = None):
        """tagger: Answering of a run that finds slots, or None."""
        self._answering, self._options, self._tagger = answering, answering.dataset.options, tagger
        self.reads = answering.reads if tagger is None else [*answering.reads, *tagger.reads]
        self.text, self._names = self._options.text, answering.dataset.label_names
        self._templates = read_templates(self._options.templates, self._names)
        passages, encoder = read_passages(self._options.passages), None
        if passages and self._options.encoder:
            from train.generation.embeddings import load_embedder

            encoder = load_embedder(self._options.encoder)
        self._passages = Passages(passages, encoder)
        of = [self._options.precision, self._options.nobody, self._options.unfamiliar, REFUSED.pattern]
        learned = answering.learned(self._learn, of=of)
        self._temperature, self._threshold, self._curve = learned["temperature"], learned["threshold"], learned["coverage"]
        self._familiar: float = learned["familiar"]
        self._refusable = {*learned["refusable"]}
        self._anonymizer = Anonymizer(Key(b"masks say only what kind it was"))
        self._waiting: dict[str, dict[str, Any]] = {}
        self._counts: Counter[str] = Counter()
        self._confused: Counter[str] = Counter()
        """Intents of rows, with those that they were taken for; of labels that the run knows, so there are no more than their pairs."""
        self._unanswered: list[list[str]] = []

    def _learn(self) -> dict[str, Any]:
        """From the questions that were held out: the temperature of probabilities, and from which confidence and familiarity on an intent
        is believed."""
        examples, answers = self._answering.validation()
        if not examples:
            raise UserError(
                f"{self._answering.run.path}: no questions were held out", "Train with --data.validation 0.1, or validation files."
            )
        labels = np.array([self._answering.dataset.place_of(example.label, example) for example in examples])
        held = Calibration.of(answers, labels)
        known_N = familiarity(np.stack(answers))
        familiar = float(np.quantile(known_N, self._options.unfamiliar, method="lower")) if self._options.unfamiliar else 0.0
        intents = [self._names[place] for place in held.probabilities_NV.argmax(-1)]
        believable = np.array([intent != self._options.nobody for intent in intents]) & (known_N >= familiar)
        at = threshold(held.confidence_N[believable], held.right_N[believable], self._options.precision)
        seen = examples if self._answering.run.experiment.gradient.private else examples + self._answering.learned_from()
        refusable = {example.label for example in seen if REFUSED.search(example.fields["text"])}
        found = {"temperature": held.temperature, "threshold": max(at, LEAST), "familiar": familiar, "coverage": held.curve}
        return found | {"refusable": sorted(refusable)}

    # Rows

    @property
    def columns(self) -> dict[str, Column]:
        from train.apps.answering import ID

        o = self._options
        return {
            o.text: Column("What is asked."),
            "slots": Column('What fills the slots of answers, by their names, such as {"date": "Monday"}.', "object"),
            "conversation": Column("A name that all rows of one conversation have, in their order."),
            o.label: Column("What it is about, if that is known: the summary counts how often it is found."),
        } | ID

    @property
    def example(self) -> dict[str, Any]:
        from train.apps.answering import legible

        return {self.text: legible("Where is my order?", self._answering.tokenizer)}

    def answers(self, rows: Sequence[Record]) -> list[dict[str, Any]]:
        from train.apps.answering import in_place

        return in_place(rows, lambda row: (row, self._answering.example_of(row, labelled=True), self._slots_of(row)), self._lines)

    def _lines(self, read: list[tuple[Record, Example, dict[str, str]]]) -> list[dict[str, Any]]:
        examples = [example for _, example, _ in read]
        raw_NV = np.stack(self._answering(examples)) if examples else np.zeros((0, len(self._names)))
        texts = [example.fields["text"] for example in examples]
        lines = []
        beliefs = zip(tempered(raw_NV, self._temperature), familiarity(raw_NV), strict=True)
        found = zip(read, beliefs, self._passages.scores(texts), self._found_slots(texts), strict=True)
        for (row, example, slots), (probability_V, known), score_N, own in found:
            lines.append(self._answer(example.fields["text"], self._conversation(row), own, slots, probability_V, float(known), score_N))
            self._count(example.label, lines[-1])
        return lines

    def reply(self, turns: Sequence[str]) -> dict[str, Any]:
        with self.forgetting():
            self._waiting = {}
            return self.answers([Record({self.text: turn, "conversation": "reply"}, "message") for turn in turns])[-1]

    def _answer(
        self,
        question: str,
        conversation: str,
        found_slots: dict[str, str],
        given: dict[str, str],
        probability_V: np.ndarray,
        known: float,
        score_N: np.ndarray,
    ) -> dict[str, Any]:
        """conversation: "" for none. found_slots: by the tagger, in the question; given: by the row, which is believed first. known: the
        question's familiarity."""
        order = np.argsort(-probability_V, kind="stable")
        intent, confidence = self._names[int(order[0])], float(probability_V[order[0]])
        waiting = self._waiting.pop(conversation, None) if conversation else None
        line: dict[str, Any] = {"question": self.masked(question), "intent": intent, "confidence": round(confidence, 4)}
        line |= {"familiarity": round(known, 4), "citations": []}
        familiar = known >= self._familiar
        refused = REFUSED.search(question) is not None and intent not in self._refusable
        sure = familiar and confidence >= self._threshold and not refused
        best = int(score_N.argmax()) if len(score_N) else -1
        found = best >= 0 and score_N[best] >= self._options.found
        # A page that was written for no question has most words of a short one: that says little of what is asked.
        written_for_it = found and bool(self._passages.passages[best].question)
        same = written_for_it and score_N[best] >= SAME
        # Whoever was asked for something most likely gives it, in few words: another subject must be clear.
        clear = written_for_it or (familiar and confidence >= (1 + self._threshold) / 2) or len(question) > LONGEST_VALUE
        if waiting is not None and not clear and not refused and waiting["intent"] in self._templates:
            whole = {} if found_slots else {waiting["missing"]: self.masked(question.strip())}
            slots = whole | found_slots | waiting["slots"] | given
            return line | {"intent": waiting["intent"], "confidence": None} | self._template(conversation, waiting["intent"], slots)
        if sure and intent in self._templates and intent != self._options.nobody and not same:
            return line | self._template(conversation, intent, found_slots | given)
        if refused and not same:
            return line | {"route": "human", "answer": self._options.human, "missing_slots": [], "refused": True}
        if found:
            return line | self._retrieved(score_N, best)
        second = int(order[1])
        likely = probability_V[order[:2]].sum() >= LIKELY and probability_V[second] >= confidence / 2
        if likely and familiar and not sure and self._options.nobody not in (intent, self._names[second]):
            first, other = (self._names[int(place)].replace("_", " ") for place in order[:2])
            asked = _filled(self._options.unsure, {"first": first, "second": other})
            return line | {"route": "unsure", "answer": asked, "missing_slots": []}
        return line | {"route": "human", "answer": self._options.human, "missing_slots": []}

    def _conversation(self, row: Record) -> str:
        """A name that says nothing of whose it is; "" for none."""
        name = row.get("conversation")
        if name in (None, ""):
            return ""
        return hashlib.blake2b(str(name).encode("utf-8", "replace"), digest_size=12, key=str(self.reads[0]).encode()[:64]).hexdigest()

    def _found_slots(self, texts: Sequence[str]) -> list[dict[str, str]]:
        """The first of each kind in each text, masked; what is a part of something masked is left out."""
        found: list[dict[str, str]] = [{} for _ in texts]
        if self._tagger is None:
            return found
        parts: dict[int, list[Example]] = {}
        for place, text in enumerate(texts):
            with contextlib.suppress(UserError):  # a text without words, or that the run cannot read, has none
                parts[place] = self._tagger.parts_of(Record({"text": text}, ""))
        for place, (example, tags) in zip(parts, self._tagger.answered([*parts.values()]), strict=True):
            shown = self.masked(texts[place])
            for one in self._tagger.dataset.entities(example, tags):
                value = self.masked(one["text"])
                if value != one["text"] or value in shown:
                    found[place].setdefault(one["kind"], value)
        return found

    def _slots_of(self, row: Record) -> dict[str, str]:
        """Masked. UserError for slots that are no texts by name."""
        slots = row.get("slots") or {}
        if not isinstance(slots, dict) or not all(isinstance(value, str | int | float) for value in slots.values()):
            raise UserError(f"{row.where}: slots are no texts by name", 'Give an object such as {"date": "Monday"}.')
        return {name: self.masked(str(value)) for name, value in slots.items()}

    def _template(self, conversation: str, intent: str, slots: dict[str, str]) -> dict[str, Any]:
        """The answer of an intent: with all slots filled, or without the sentences that have an open one, which is asked for in a
        conversation, and where nothing else is left to say."""
        answer = self._templates[intent]
        missing = [name for name in dict.fromkeys(SLOT.findall(answer)) if name not in slots]
        if missing and conversation:
            self._waiting[conversation] = {"intent": intent, "slots": slots, "missing": missing[0]}
            if len(self._waiting) > WAITING:
                del self._waiting[next(iter(self._waiting))]
        sentences = [sentence for sentence in SENTENCE.split(answer) if not {*SLOT.findall(sentence)} & {*missing}] if missing else [answer]
        said = _filled("".join(sentences).strip(), slots)
        if missing and (conversation or not said):
            said = f"{said} {_filled(self._options.ask, {'slot': missing[0].replace('_', ' ')})}".strip()
        return {"route": "template", "answer": said, "missing_slots": missing}

    def _retrieved(self, score_N: np.ndarray, best: int) -> dict[str, Any]:
        chosen = [best]
        others = [place for place in np.argsort(-score_N, kind="stable")[1:2] if score_N[place] >= 0.97 * score_N[best]]
        chosen += [int(place) for place in others if self._passages.passages[place].answer != self._passages.passages[best].answer]
        passages = [self._passages.passages[place] for place in chosen]
        citations = [
            {"id": passage.id, "link": passage.link, "start": 0, "end": len(passage.answer), "quote": passage.answer}
            for passage in passages
        ]
        said = "\n\n".join(passage.answer for passage in passages)
        return {
            "route": "retrieved",
            "answer": said,
            "missing_slots": [],
            "citations": citations,
            "score": round(float(score_N[best]), 4),
        }

    def masked(self, text: str) -> str:
        """With [KIND] for each number or address of a person."""
        return self._anonymizer.masked(text)

    # All rows

    def _count(self, label: str | None, line: dict[str, Any]) -> None:
        self._counts[line["route"]] += 1
        if line["route"] in ("unsure", "human"):
            self._unanswered = [*self._unanswered, [line["intent"], line["question"]]][-SHOWN:]
        if label is None:
            return
        known = label in self._names and label != self._options.nobody
        self._counts["labelled"] += known
        self._counts["other"] += not known
        self._counts["right"] += known and line["intent"] == label
        if known and line["intent"] != label:
            self._confused[f"{label}\t{line['intent']}"] += 1
        if line["route"] == "template":
            self._counts["believed"] += known
            self._counts["believed_right"] += known and line["intent"] == label
            self._counts["believed_other"] += not known

    def state(self) -> Any:
        counts = {"counts": dict(self._counts), "confused": dict(self._confused)}
        return {"waiting": dict(self._waiting), **counts, "unanswered": self._unanswered}

    def restore(self, state: Any) -> None:
        self._waiting, self._counts, self._unanswered = state["waiting"], Counter(state["counts"]), state["unanswered"]
        self._confused = Counter(state["confused"])

    def summary(self) -> dict[str, Any]:
        """Rows of each route; where rows had labels, accuracy, the share that a template answered, how often it was right (of all that it
        answered), and the share of the questions about nothing known that it answered."""
        c = self._counts
        found: dict[str, Any] = {route: c[route] for route in ("template", "retrieved", "unsure", "human")}
        if c["labelled"]:
            answered = c["believed"] + c["believed_other"]
            found |= {"accuracy": c["right"] / c["labelled"], "answered": c["believed"] / c["labelled"]}
            found |= {"precision": c["believed_right"] / answered} if answered else {}
        return found | ({"others_answered": c["believed_other"] / c["other"]} if c["other"] else {})

    def sections(self) -> list[Section]:
        from train.apps.pictures import coverage_picture

        routes = self.summary_rows()
        believed = "never" if self._threshold >= NEVER else f"from a confidence of {self._threshold:.3f} on"
        familiar = [["if its familiarity is at least", f"{self._familiar:.3f}"]] if self._familiar else []
        return [
            Section(
                "Customer service: what was answered",
                {"service_coverage": coverage_picture(self._curve, self._options.precision)},
                ("route", "rows"),
                [*routes, ["an intent is believed", believed], *familiar],
            ),
            Section(
                "Customer service: intents that were taken for others",
                {},
                ("intent", "taken for", "rows"),
                [[*pair.split("\t"), f"{count:,}"] for pair, count in self._confused.most_common(CONFUSED)],
            ),
            Section("Customer service: questions without an answer", {}, ("nearest intent", "question"), sorted(self._unanswered)),
        ]


def _filled(text: str, values: dict[str, str]) -> str:
    """A text with its slots filled; what is put in is not looked at again."""
    return SLOT.sub(lambda slot: values[slot[1]], text)
