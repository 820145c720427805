"""Spelling of Chinese: an encoder says at each place which character should stand there, and an editor which of that is believed."""

import dataclasses
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from data.errors import UserError
from data.records.record import Record
from train.apps.editing.editing import Editing, EditingDataset
from train.apps.editing.edits import Edit
from train.apps.editing.proposals import Proposals, Proposed
from train.apps.editing.sounds import CHINESE, SYLLABLES, Confusions, alike, number_of, toned
from train.evaluation.ngram import NGram
from train.kinds import Units, check_range
from train.objectives.tasks.heads import Classes
from train.tasks.examples import Example, content_hash
from train.tasks.packing import Item, Piece
from train.tasks.sequence import Measure

FEWEST = 20
"""Only characters that stand in right sentences at least so often can be answers."""
OTHERS = 8
"""For each place the encoder names so many other characters, the likeliest ones."""
UNLIKELY = -20.0
"""The lowest log-probability, in nats, that the editor reads from the encoder."""
ORDER = 3
"""Characters of the longest n-grams that are counted; those of four find no more."""
BEST = 2
"""Candidates for each place: so many that raise the n-gram probability most, and as many that are likeliest by the encoder."""
MOST_RIGHT = 1000
"""Held-out right sentences that are read, at most."""
WRITTEN = ("wrong", "right", "times")
RIGHT, AGAIN = "right", "again"
"""Sorts of examples, as `parts` of them: a right sentence, and a pair that is repeated."""


@dataclasses.dataclass(frozen=True)
class Spelling(Editing):
    """Chinese sentences with misspelled characters and the same without, and right sentences: rows that have a target alone. Some of the
    characters of right sentences are replaced each time that they are learned from. Those that are held out, and the targets of held-out
    pairs, tell how sure an edit must be so that at most the share `spoiled` of them is changed."""

    home: ClassVar[str] = ":SpellingDataset"
    how_to_get: ClassVar[str] = "Give pairs of sentences, and right ones beside: --data.files pairs.jsonl right.jsonl."

    language: str = "zh"
    measures: tuple[Measure, ...] = ("exact",)
    right: float = 0.0
    """Has no use here: right sentences come from the files."""
    pairs: float = 0.25
    """Share of pairs among the examples to learn from. They are repeated up to it."""
    misspelled: float = 0.2
    """Share of the characters of right sentences that are replaced, by others of the same or a near sound, or by such as were written in
    their place in the pairs."""
    correct_weight: float = 0.1
    """Weight of the loss at a character that is right, against one that is not."""

    def __post_init__(self):
        super().__post_init__()
        check_range("data.", self, 0, "pairs", "misspelled", high=1)
        check_range("data.", self, 0, "correct_weight")
        if self.language != "zh":
            raise ValueError(f"data.language is {self.language!r}; Spelling is for zh")
        if self.right:
            raise ValueError("data.right is for Editing: Spelling reads right sentences from its files, as rows that have a target alone")


class CharacterHead(Classes):
    """One of the characters for each token. Answers: float32 [B, T, 1 + 2 OTHERS], the log-probability of the character that stands there,
    the numbers of the likeliest others, and their log-probabilities. batch.labels: int32 [B, T, 2], the character that should stand there,
    and that which does, -1 for one that can be no answer."""

    def losses(self, logits, batch, smoothing: float = 0.0):
        return super().losses(logits, batch._replace(labels=batch.labels[..., 0]), smoothing)

    def answers(self, logits, batch):
        log_p = jax.nn.log_softmax(logits)
        own = batch.labels[..., 1]
        there = jnp.take_along_axis(log_p, jnp.maximum(own, 0)[..., None], -1)[..., 0]
        others, numbers = jax.lax.top_k(jnp.where(jax.nn.one_hot(own, self.width, dtype=bool), -jnp.inf, log_p), OTHERS)
        return jnp.concatenate([jnp.where(own >= 0, there, -jnp.inf)[..., None], numbers.astype(jnp.float32), others], -1)


class SpellingDataset(EditingDataset):
    """An answer is a sentence of as many characters.

    Evaluation scores the encoder alone: at each place the likeliest character. The application is another model, which reads the encoder
    among other things, and is far better: see `Speller`.
    """

    options: Spelling
    by_token, writes, changeable = True, False, ()
    empty_label = np.zeros(2, np.int32)

    def example(self, record: Record) -> Example:
        o = self.options
        if record.get(o.source) in (None, "") and (target := record.get(o.target)):
            record = Record({**record, o.source: target[0] if isinstance(target, list) else target}, record.where)
            return super().example(record)._replace(parts=RIGHT)
        found = super().example(record)
        for target in found.label or ():
            if len(target) != len(found.fields["given"]):
                raise UserError(
                    f"{record.where}: {o.target} has {len(target)} characters, and {o.source} {len(found.fields['given'])}",
                    "Spelling puts one character in the place of another. Use Editing, or leave such rows out: --data.leave-out.",
                )
        return found

    def examples(self, sources, split: str) -> list[Example]:
        """To learn from, pairs, as often as `pairs` says, and right sentences, none that is held out, neither as such nor as the target of
        a pair; to evaluate on, pairs alone."""
        pairs, right = self._divided(sources, split)
        if split != "train":
            return pairs
        held = {one.label[0] for own in self._divided(sources, "validation") for one in own if one.label}
        pairs, right = ([one for one in some if one.label[0] not in held] for some in (pairs, right))
        share = self.options.pairs
        times = max(1, round(share / (1 - share) * len(right) / len(pairs))) if pairs else 0
        return pairs + [one._replace(parts=AGAIN) for one in pairs] * (times - 1) + right

    def _divided(self, sources, split: str) -> tuple[list[Example], list[Example]]:
        """Pairs and right sentences of the files."""
        found = super(EditingDataset, self).examples(sources, split)
        return [one for one in found if one.parts != RIGHT], [one for one in found if one.parts == RIGHT]

    def right_beside(self, run: Any) -> list[str]:
        sources = run.corpora()
        (learned, _), (held, right) = self._divided(sources, "train"), self._divided(sources, "validation")
        known = {one.label[0] for one in learned + held if one.label}
        return sorted({one.label[0] for one in right} - known, key=content_hash)[:MOST_RIGHT]

    def labels(self, examples: Sequence[Example]) -> tuple[str, ...]:
        counts = Counter(letter for example in dict.fromkeys(one.label[0] for one in examples) for letter in example)
        return tuple(sorted(letter for letter, count in counts.items() if count >= FEWEST))

    def names_of(self, example: Example) -> tuple[str, ...]:
        return ()

    def counted_labels(self, example: Example) -> tuple[str, ...]:
        return () if example.parts == AGAIN else tuple(example.label[0])

    def head(self):
        return CharacterHead(len(self.label_names), by_token=True)

    def check(self, sources: list) -> None:
        super().check(sources)
        if sources[0].tokenizer().kind != "char":
            raise UserError(
                "Spelling reads characters, and the tokenizer has other pieces",
                "Prepare texts with --tokenizer char, for --data.tokenizer.",
            )
        for split, mend in (
            ("train", "Give some in --data.files."),
            ("validation", "Give some in --data.validation-files, or more pairs."),
        ):
            if not any(one.parts != RIGHT for one in self.examples(sources, split)):
                raise UserError(f"data: there are no pairs (rows with a source and a target) in the {split} split", mend)
        if len(self.label_names) <= OTHERS:
            raise UserError(
                f"data: only {len(self.label_names)} characters stand {FEWEST} times in right sentences; Spelling needs over {OTHERS}",
                "Give more right sentences, as rows that have a target alone.",
            )

    def units(self, sources: list, user: str = "", rows: int = 1) -> Units:
        if self.experiment.gradient.private:
            raise UserError(
                "Spelling counts the texts that it learns from, of which a private run promises to tell nothing",
                "Train with the gradient Exact, or use Editing.",
            )
        return super().units(sources, user, rows)

    def changer(self, examples: Sequence[Example]) -> Callable[[Example, int], Example]:
        """(example, row) -> the example as that row of the stream has it: right sentences are misspelled."""
        objective: Any = self.experiment.objective
        frequencies = dict(zip(self.label_names, objective.counts, strict=True))
        confusions = Confusions(frequencies, written_in(examples))
        seed, rate = self.experiment.seed, self.options.misspelled

        def change(example: Example, row: int) -> Example:
            if example.parts != RIGHT:
                return example
            draw = np.random.default_rng((seed, row))
            text = example.label[0]
            letters = [
                confusions.drawn(letter, draw) if chance < rate else letter
                for letter, chance in zip(text, draw.random(len(text)), strict=True)
            ]
            return example._replace(fields=example.fields | {"source": "".join(letters)})

        return change

    # Rows

    def _places(self) -> tuple[dict[str, int], dict[str, int]]:
        """Numbers of characters, as answers and as tokens."""
        if getattr(self, "_numbers", None) is None:
            tokens = {piece.decode(): number for number, piece in enumerate(self.tokens.pieces[: self.tokens.base_size])}
            self._numbers = {letter: number for number, letter in enumerate(self.label_names)}, tokens
        return self._numbers

    def pieces(self, example: Example, labelled: bool) -> Item:
        answers, tokens = self._places()
        text = example.fields["source"]
        unknown = self.tokens.specials["mask"]
        ids, _ = self.wrapped(np.array([tokens.get(letter, unknown) for letter in text], np.int32))
        text = text[: len(ids) - 2]
        types = np.zeros(len(ids), np.int32)
        if self.experiment.model.token_types >= SYLLABLES:  # type: ignore[attr-defined]
            types[1:-1] = [number_of(letter) for letter in text]
        label, learned = np.full((len(ids), 2), -1, np.int32), np.zeros(len(ids), np.float32)
        label[1:-1, 1] = [answers.get(letter, -1) for letter in text]
        if labelled:
            label[1:-1, 0] = [answers.get(letter, -1) for letter in example.label[0][: len(text)]]
            same = label[1:-1, 0] == label[1:-1, 1]
            learned[1:-1] = np.where(label[1:-1, 0] < 0, 0.0, np.where(same, self.options.correct_weight, 1.0))
        return (Piece(ids, types, label, learned=learned),)

    def found(self, example: Example, outputs: Any) -> np.ndarray:
        """float32 [characters, 1 + 2 OTHERS], as of CharacterHead."""
        return outputs[0][1:-1]

    def joined(self, examples: list[Example], answers: list[Any]) -> tuple[list[Example], list[Any]]:
        """Sentences with the likeliest character at each place."""
        return examples, [self._likeliest(one.fields["given"], values) for one, values in zip(examples, answers, strict=True)]

    def _likeliest(self, text: str, answer: np.ndarray) -> str:
        better = (answer[:, 1 + OTHERS] > answer[:, 0]) & (answer[:, 0] > -np.inf)
        new = [self.label_names[int(number)] if changed else old for old, number, changed in zip(text, answer[:, 1], better, strict=False)]
        return "".join(new) + text[len(new) :]

    def edits_of(self, text: str, other: str) -> set[tuple[int, int, str]]:
        return {(place, place + 1, new) for place, (old, new) in enumerate(zip(text, other, strict=True)) if old != new}

    def proposer(self, answering: Any) -> "Speller":
        return Speller(answering)


def written_in(examples: Sequence[Example]) -> Counter[tuple[str, str]]:
    """How often one character (first) was written in the place of another, in pairs, each counted once."""
    pairs = {(one.fields["given"], one.label[0]) for one in examples if one.parts != RIGHT}
    return Counter((wrong, right) for given, target in pairs for wrong, right in zip(given, target, strict=True) if wrong != right)


# ----------------------------------------------------------------------------------------------------------------- the speller


class Counts:
    """What is counted in the sentences to learn from: n-grams of the right ones, and which character was written for which."""

    def __init__(self, arrays: Mapping[str, np.ndarray], letters: Sequence[str], frequencies: Sequence[int]):
        """arrays: of `arrays_of`. letters: characters by number, with their frequencies."""
        self.ngrams = NGram.of_arrays(arrays)
        self._numbers = {letter: number for number, letter in enumerate(letters)}
        self.frequencies = dict(zip(letters, frequencies, strict=True))
        self.written = {(wrong, right): int(times) for wrong, right, times in zip(*(arrays[name] for name in WRITTEN), strict=True)}
        self.misspelled = Counter[str]()
        for (wrong, _), times in self.written.items():
            self.misspelled[wrong] += times
        either_way = {both for pair in self.written for both in (pair, pair[::-1])}
        self.confusions = Confusions(self.frequencies, dict.fromkeys(sorted(either_way), 1))

    @staticmethod
    def arrays_of(examples: Sequence[Example], letters: Sequence[str]) -> dict[str, np.ndarray]:
        numbers = {letter: number for number, letter in enumerate(letters)}
        texts = dict.fromkeys(one.label[0] for one in examples)
        ngrams = NGram.fit((_ids(text, numbers) for text in texts), len(letters) + 1, ORDER)
        written = written_in(examples)
        pairs = [np.array([pair[place] for pair in written], "<U1") for place in (0, 1)]
        return ngrams.arrays() | dict(zip(WRITTEN, [*pairs, np.array([*written.values()], np.int64)], strict=True))

    def gains(self, text: str, changes: Sequence[tuple[int, str]]) -> np.ndarray:
        """By how many nats each change (place, new character) alone makes a text likelier, by its n-grams; float64."""
        beside = ORDER - 1
        ids = np.concatenate([np.full(beside, self.ngrams.vocab), _ids(text, self._numbers), np.full(beside, -1)])
        places = sorted({place for place, _ in changes})
        windows = np.lib.stride_tricks.sliding_window_view(ids, 2 * beside + 1)
        before = dict(zip(places, self._nats(windows[places]), strict=True))
        changed = windows[[place for place, _ in changes]].copy()
        changed[:, beside] = _ids("".join(new for _, new in changes), self._numbers)
        return self._nats(changed) - np.array([before[place] for place, _ in changes])

    def _nats(self, windows: np.ndarray) -> np.ndarray:
        return self.ngrams.log_probs(windows)[:, ORDER - 1 :].sum(1)


def _ids(text: str, numbers: Mapping[str, int]) -> np.ndarray:
    """Numbers of characters, the last for all that have none."""
    return np.array([numbers.get(letter, len(numbers)) for letter in text], np.int64)


class Speller:
    """Proposes other characters: those that are likeliest by an encoder, and of these and of such as sound alike or were written for one
    another those that are likeliest by n-grams. It proposes nothing in the place of a character that the run did not learn, such as one of
    another script. names: see `Proposer`."""

    names: tuple[str, ...] = (
        "encoder", "gain", "loss", "gain to 10", "same sound", "near sound", "same tone",
        "written", "written the other way", "share written", "misspelled", "frequency", "frequency of new",
    )  # fmt: skip
    least = 1 / 3
    """Of edits that are less likely, more than two in three would be wrong."""
    reads: tuple[Any, ...] = (ORDER, OTHERS, BEST, UNLIKELY, MOST_RIGHT)

    def __init__(self, answering: Any):
        self._answering, self._dataset = answering, answering.dataset
        letters, frequencies = answering.dataset.label_names, answering.run.experiment.objective.counts
        arrays = answering.counted(lambda: Counts.arrays_of(answering.learned_from(), letters), of=["spelling", ORDER])
        self._letters, self.counts = letters, Counts(arrays, letters, frequencies)

    def __call__(self, sentences: Sequence[str]) -> list[Proposals]:
        o = self._dataset.options
        distinct = [text for text in dict.fromkeys(sentences) if len(text) <= o.length - 2]
        answers = self._answering([self._dataset.example(Record({o.source: text}, "text")) for text in distinct])
        found = {text: self._proposals(text, answer) for text, answer in zip(distinct, answers, strict=True)}
        return [found.get(text, Proposals()) for text in sentences]

    def _proposals(self, text: str, answer: np.ndarray) -> Proposals:
        """answer: of the dataset's `found`."""
        odds: dict[tuple[int, str], float] = {}
        for place, (letter, values) in enumerate(zip(text, answer.tolist(), strict=True)):
            if not CHINESE.fullmatch(letter) or letter not in self.counts.frequencies:
                continue
            own, others = max(values[0], UNLIKELY), values[1 + OTHERS :]
            for kind in self.counts.confusions.of(letter).values():
                odds |= {(place, other): max(others[-1], UNLIKELY) - own for other in kind[0]}
            odds |= {
                (place, other): max(value, UNLIKELY) - own
                for number, value in zip(values[1 : 1 + OTHERS], others, strict=True)
                if CHINESE.fullmatch(other := self._letters[int(number)])
            }
        if not odds:
            return Proposals()
        gains = dict(zip(odds, self.counts.gains(text, [*odds]).tolist(), strict=True))
        best: dict[int, list[str]] = defaultdict(list)
        for by in (gains, odds):
            for place, other in sorted(odds, key=by.__getitem__, reverse=True):
                if len(best[place]) < BEST * (1 + (by is odds)) and other not in best[place]:
                    best[place].append(other)
        edits = []
        for place, others in sorted(best.items()):
            for other in others:
                edit = Edit(place, place + 1, text[place], other, place, place + 1)
                edits.append(Proposed(edit, self._features(text[place], other, odds[place, other], gains[place, other])))
        return Proposals(edits, lambda accepts: _applied(text, filter(accepts, (one.edit for one in edits))))

    def _features(self, old: str, new: str, odds: float, gain: float) -> tuple[float, ...]:
        c, sound = self.counts, alike(old, new)
        times, frequency = c.written.get((old, new), 0), c.frequencies.get(old, 0)
        return (
            odds,
            max(gain, 0.0),
            min(gain, 0.0),
            min(gain, 10.0),
            float(sound == "same"),
            float(sound == "near"),
            float(toned(old) == toned(new)),
            math.log1p(times),
            math.log1p(c.written.get((new, old), 0)),
            math.log((times + 0.01) / (frequency + 1)),
            math.log1p(c.misspelled[old]),
            math.log1p(frequency),
            math.log1p(c.frequencies.get(new, 0)),
        )


def _applied(text: str, edits: Iterable[Edit]) -> str:
    letters = list(text)
    for edit in edits:
        letters[edit.start] = edit.new
    return "".join(letters)
