"""What marks a style, what a model reads without it, and which of several texts is given."""

import copy
import json
import math
import types
from collections import Counter

import pytest

from data.errors import UserError
from data.records.record import Record
from data.tokenizer import character_tokenizer
from model.config import ModelConfig
from tests.train import tiny_runs
from tests.train.apps.columns import check_columns
from train.apps.answering import Answering
from train.apps.editing import restyling
from train.apps.editing.edits import CHARACTER, WORD
from train.apps.editing.restyling import GAP, PRIOR, Marks, Restyler, Restyling, clearest, marks_in, without
from train.experiment import Checkpoints, Evaluation, Experiment, MeshShape, Samples
from train.objectives.tasks.options import Supervised
from train.runs.directory import open_run
from train.sources.dataset import dataset_of
from train.step.private.options import Private

TEXTS = [
    *({"text": f"the film number{n} is truly dull", "style": "bad"} for n in range(20)),
    *({"text": f"the film number{n} is a joy", "style": "good"} for n in range(20)),
]


def learned(rows=TEXTS, **options):
    """The dataset of a run that learned from some rows."""
    data = Restyling(**options)
    made = dataset_of(Experiment(data=data, objective=Supervised()))
    examples = [made.example(Record({data.source: row["text"], data.style: row["style"]}, "line")) for row in rows]
    objective = Supervised(labels=made.labels(examples), fitted=made.fitted_to(examples))
    return dataset_of(Experiment(data=data, objective=objective))


@pytest.fixture
def marks():
    return learned().marks


class Fake:
    """As Answering: it writes the texts of a list in turn, each as likely as a number after "|" says; one that ends in "-" ran on."""

    reads, tokenizer = ("run", 1, False), types.SimpleNamespace(encode=lambda text: [])

    def __init__(self, *texts, dataset=None):
        self.dataset, self._texts, self.calls = dataset or learned(), texts or ("",), []

    def checked(self, example):
        return example

    def fits(self, example):
        return len(example.fields["source"]) < 100

    def continued(self, examples, *, sampling, draws):
        self.calls.append(([one.fields["source"] for one in examples], sampling.temperature))
        assert len({one.fields["style"] for one in examples} - {*self.dataset.marks.styles}) == 0
        texts = [self._texts[(seed + number) % len(self._texts)].partition("|") for seed, number in draws]
        return [
            types.SimpleNamespace(text=text, log_probs=(float(score or -1),), finish="length" if text.endswith("-") else "stop")
            for text, _, score in texts
        ]


def ask(restyler, **row):
    (line,) = restyler.answers([Record(row, "line 1")])
    return line


def test_marks_are_words_that_are_more_frequent_in_a_style_than_chance_allows(marks):
    assert {*marks.of["bad"]} == {"dull", "truly"} and {*marks.of["good"]} == {"joy", "a"} and marks.styles == ["bad", "good"]
    assert marks.strongest("bad") == ["dull", "truly"]  # as strong as one another, by the alphabet


def odds_of(here, there, total=1000):
    """The log-odds of a word that stands so often in a style and in others of as many words, and their standard deviation."""
    odds = math.log((here + PRIOR) / (total - here + PRIOR)) - math.log((there + PRIOR) / (total - there + PRIOR))
    return odds, math.sqrt(1 / (here + PRIOR) + 1 / (there + PRIOR))


def counts(words, total=1000):
    """Of the styles a and b, with words that stand nowhere else to make up the total."""
    both = ({word: pair[side] for word, pair in words.items()} for side in (0, 1))
    return {style: Counter(own | {f"rest {style}": total - sum(own.values())}) for style, own in zip("ab", both, strict=True)}


def test_a_mark_is_so_many_standard_deviations_away():
    """By hand, for a word that stands 9 times in one style and twice in another."""
    odds, deviation = odds_of(9, 2)
    given = counts({"word": (9, 2)})
    assert marks_in(given, odds / deviation - 1e-6)["a", "word"] == pytest.approx(odds)
    assert ("a", "word") not in marks_in(given, odds / deviation + 1e-6)


def test_words_that_differ_by_little_are_no_marks_however_sure_that_is():
    assert ("a", "of") not in marks_in(counts({"of": (70_000, 60_000)}, 1_000_000), 2.0)
    assert ("a", "of") in marks_in(counts({"of": (100_000, 60_000)}, 1_000_000), 2.0)


def test_marks_have_a_letter_and_stand_more_than_once():
    assert {*marks_in(counts({", ,": (50, 0), "once": (1, 0), "so": (9, 0)}), 0.5)} == {("a", "so"), ("a", "rest a"), ("b", "rest b")}


def test_words_in_a_row_are_a_mark_where_no_part_of_them_is():
    given = counts({"dull": (40, 0), "so dull": (30, 0), "one of": (40, 0), "one": (50, 50), "of": (50, 50)})
    assert {words for style, words in marks_in(given, 2.0) if style == "a"} == {"dull", "one of", "rest a"}


def test_what_is_counted_is_different_texts_of_each_style_from_all_over(monkeypatch):
    """A text that stands often counts once; of many, as many of each style, whatever their order."""
    monkeypatch.setattr(restyling, "LOOKED_AT", 10)
    assert learned([*TEXTS[:2] * 50, *TEXTS]).label_names == learned().label_names
    turns = [row for pair in zip(TEXTS[:20], TEXTS[20:], strict=True) for row in pair]
    assert {*learned(turns).marks.of} == {"bad", "good"}


def test_long_words_are_no_marks():
    rows = [*TEXTS, *({"text": f"{'x' * 10_000} {n}", "style": "bad"} for n in range(20))]
    assert max(map(len, learned(rows).label_names)) < 100


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (TEXTS[:20], "in 1 styles \\(bad\\)"),
        ([], "in 0 styles"),
        ([{"text": f"text {n}", "style": str(n)} for n in range(30)], "in 30 styles"),
        ([{"text": "one text", "style": "a"}, {"text": "one text too", "style": "b"}], "no words mark the style"),
    ],
)
def test_styles_are_a_few_that_words_tell(rows, said):
    with pytest.raises(UserError, match=said):
        learned(rows)


def test_marks_beside_one_another_are_one_gap_and_all_else_stays(marks):
    text = "The  film was TRULY dull!\nA joy."
    places = marks.places(text, marks.of["bad"], WORD)
    assert [text[start:end] for start, end in places] == ["TRULY dull"]
    assert without(text, places) == f"The  film was {GAP}!\nA joy." and without(text, []) == text
    assert without("well… dull", [(6, 10)]) == f"well... {GAP}"
    assert [text[start:end] for start, end in marks.places(text, marks.of["bad"] | marks.of["good"], WORD)] == ["TRULY dull", "A joy"]


def test_overlapping_marks_take_the_longer_one():
    marks = Marks({("a", "one of"): 1.0, ("a", "of the best"): 1.0})
    text = "one of the best"
    assert [text[start:end] for start, end in marks.places(text, marks.of["a"], WORD)] == ["of the best"]


def test_marks_tell_the_style(marks):
    told = {text: clearest(marks.odds(text, WORD)) for text in ("truly a dull thing", "joy", "", "nothing known")}
    assert [*told.values()] == ["bad", "good", "", ""]


def test_languages_without_spaces_are_read_by_characters():
    rows = [{"text": f"这个{word}的{n}", "style": style} for style, word in (("a", "好"), ("b", "坏")) for n in range(20)]
    made = learned(rows, language="zh")
    assert made.pattern is CHARACTER and without("不好的", made.marks.places("不好的", made.marks.of["a"], CHARACTER)) == f"不{GAP}的"


@pytest.fixture
def sources(tmp_path):
    """(rows to learn from and to evaluate on, dataset) -> its sources."""

    def make(rows, held, like=None, **options):
        character_tokenizer("abcdefghijklmnopqrstuvwxyz0123456789 …,:\nTI").save(str(tmp_path / "tokenizer"))
        for name, own in (("train", rows), ("held", held)):
            (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in own))
        data = Restyling(
            files=(str(tmp_path / "train.jsonl"),) if rows else (),
            validation_files=(str(tmp_path / "held.jsonl"),),
            tokenizer=str(tmp_path / "tokenizer"),
            **options,
        )
        made = dataset_of(Experiment(data=data, objective=like.experiment.objective if like else Supervised()))
        made.place = tmp_path
        return made, made.open()

    return make


def test_a_model_reads_what_is_left_of_a_text_and_writes_the_text(sources):
    made, opened = sources(TEXTS, [{"text": "a truly dull joy", "style": "bad"}], learned())
    first = made.examples(opened, "train")[0]
    assert (first.fields["source"], first.fields["style"]) == (f"the film number0 is {GAP}", "bad")
    assert made.answer(first) == TEXTS[0]["text"] and made.prompt_text(first) == f"the film number0 is {GAP}\nThe same, bad:\n"
    assert [one.fields["source"] for one in made.examples(opened, "validation")] == [f"a {GAP} joy"]


def test_marks_are_counted_in_what_is_learned_from_alone(sources):
    """Not in texts that are held out, which may be all that a style has."""
    held = [{"text": f"strange{n} words words", "style": "bad"} for n in range(50)]
    made, opened = sources(TEXTS, held)
    assert made.experiment.objective.completed(opened).labels == learned().label_names


def test_a_run_has_its_marks_where_its_files_are_not(sources):
    made, opened = sources([], [{"text": "truly dull", "style": "bad"}, {"text": "x", "style": "ugly"}], learned(), leave_out=True)
    assert [one.fields["source"] for one in made.examples(opened, "validation")] == [GAP] and opened[0].left_out.total() == 1


def test_a_model_that_learned_no_styles_is_not_asked(sources):
    made, opened = sources([], TEXTS)
    (one,) = made.examples(opened, "validation")[:1]
    with pytest.raises(UserError, match="learned no styles"):
        made.prompt_text(one)


def test_a_text_that_is_learned_from_and_evaluated_on_is_told(sources):
    made, opened = sources(TEXTS, [TEXTS[0], TEXTS[1] | {"style": "good"}, {"text": "else", "style": "bad"}], learned())
    assert "2 of 3 examples to evaluate on are also learned from, or of what is" in made.batches(opened).said


def test_what_a_private_run_cannot_promise_is_refused(sources):
    made, opened = sources(TEXTS, TEXTS, learned())
    made.experiment = Experiment(data=made.options, objective=made.experiment.objective, gradient=Private())
    with pytest.raises(UserError, match="a private run promises"):
        made.units(opened)


@pytest.mark.parametrize("style", ["a\tb", "a\nb", "a\0", "x" * 100])
def test_a_style_has_a_name(style):
    with pytest.raises(UserError, match="no name of a style"):
        learned([{"text": "text", "style": style}])


def test_spaces_around_a_style_and_other_columns(sources):
    made, opened = sources(TEXTS, [{"text": "dull", "style": " bad ", "who": "Ann"}], learned(), prompt="{who}: {source}")
    (one,) = made.examples(opened, "validation")
    assert one.fields["style"] == "bad" and made.prompt_text(one) == f"Ann: {GAP}" and "who" in made.row_columns


@pytest.mark.parametrize(("options", "said"), [({"target": "other"}, "its own target"), ({"min_z_score": 0.0}, "above 0")])
def test_options_that_mean_nothing(options, said):
    with pytest.raises(ValueError, match=said):
        Restyling(**options)


# --------------------------------------------------------------------------------------------------------------- the application


def test_of_several_texts_one_in_the_style_that_keeps_most():
    texts = ("the film number3 is dull", "a joy", "", " the film number3 is a joy |-2", "a film number3 is the joy|-1", "it is a joy|0")
    restyler = Restyler(Fake(*texts))
    line = ask(restyler, text="the film number3 is truly dull", style="good", n=6)
    assert line["text"] == "a film number3 is the joy" and line["style"] == "good" and line["kept"] == 1.0  # the likelier of two
    assert line["marks"] == [{"start": 20, "end": 30, "quote": "truly dull"}] and [one["kept"] for one in line["candidates"]][4:] == [
        1.0,
        0.25,
    ]
    assert ask(restyler, text="the film number3 is truly dull", style="good", n=3)["text"] == "a joy"
    assert restyler.summary() == {"changed": 1.0, "in_style": 1.0, "kept": 0.5} and "cut" not in line


def test_marks_that_speak_clearly_count_as_well_as_words_that_are_kept():
    """Twice the log-odds for half of the words are as good; then the likelier one is given."""
    labels = {"bad\tdull": 1.0, "good\tfine": 1.0, "good\tgreat": 2.5}
    dataset = dataset_of(Experiment(data=Restyling(), objective=Supervised(labels=tuple(labels), fitted=tuple(labels.values()))))
    texts = ("one two fine", "two great", "one great|-9")
    line = ask(Restyler(Fake(*texts, dataset=dataset)), text="one two dull", style="good", n=2)
    assert line["text"] == "two great" and [one["clear"] for one in line["candidates"]] == [1.0, 2.5]
    assert ask(Restyler(Fake(texts[0], "great", dataset=dataset)), text="one two dull", style="good", n=2)["text"] == "one two fine"
    assert ask(Restyler(Fake(*texts[1:], dataset=dataset)), text="one two dull", style="good", n=2)["text"] == "two great"


def test_words_that_were_taken_out_are_not_wanted_back():
    line = ask(Restyler(Fake("it is dull joy", "it is a joy|-0.5")), text="it is dull", style="good", n=2)
    assert line["text"] == "it is a joy"  # both keep all that was left


def test_a_text_without_marks_of_another_style_stays():
    restyler = Restyler(Fake("else"))
    for text in ("the  film is a joy", "nothing known", "words " * 50):
        line = ask(restyler, text=text, style="good")
        assert (line["text"], line["edits"], line["marks"], line["candidates"]) == (text, [], [], []) and "cut" not in line
    assert line["kept"] == 1.0 and restyler.summary()["changed"] == 0.0 and restyler._answering.calls == []


def test_where_nothing_is_written_the_text_stays():
    line = ask(Restyler(Fake("", "x-")), text="truly dull", style="good", n=2)
    assert line["text"] == "truly dull" and line["style"] == "bad"


def test_a_text_that_is_not_read_or_written_whole_stays_and_says_so():
    line = ask(Restyler(Fake("a joy")), text="dull " + "word " * 30, style="good", n=1)
    assert line["cut"] and line["text"] == "dull " + "word " * 30 and line["candidates"] == []
    line = ask(Restyler(Fake("a joy and so on-", "a joy")), text="dull", style="good", n=2)
    assert line["cut"] and line["text"] == "a joy" and len(line["candidates"]) == 1


def test_if_no_text_is_in_the_style_the_nearest_is_given_and_that_is_told():
    restyler = Restyler(Fake("it is truly dull", "so unknown"))
    line = ask(restyler, text="it is truly dull", style="good", n=2)
    assert (line["text"], line["style"]) == ("it is truly dull", "bad") and restyler.summary()["in_style"] == 0.0


@pytest.mark.parametrize(
    ("text", "style", "quoted"),
    [
        ("a gory and dull joy", "good", ["gory", "dull"]),  # of the style that it is in
        ("a truly dull and gory joy", "good", ["dull", "gory"]),
        ("truly dull", "cruel", ["truly"]),  # "dull" may stay
        ("it is dull", "cruel", []),
        ("a joy", "bad", ["joy"]),
    ],
)
def test_of_three_styles_the_marks_of_the_one_that_it_is_in_but_not_of_the_wanted_one(text, style, quoted):
    labels = {"bad\tdull": 1.0, "bad\ttruly": 1.0, "cruel\tdull": 1.0, "cruel\tgory": 3.0, "good\tjoy": 1.0}
    dataset = dataset_of(Experiment(data=Restyling(), objective=Supervised(labels=tuple(labels), fitted=tuple(labels.values()))))
    line = ask(Restyler(Fake("x", dataset=dataset)), text=text, style=style)
    assert [one["quote"] for one in line["marks"]] == quoted


def test_rows_depend_on_themselves_alone():
    texts = tuple(f"a joy {number}" for number in range(7))
    rows = [Record({"text": f"dull {n}", "style": "good", "seed": n, "n": 1 + n % 8, "temperature": n % 2}, f"line {n}") for n in range(16)]
    fake = Fake(*texts)
    together = Restyler(fake).answers(rows)
    assert together == [Restyler(Fake(*texts)).answers([row])[0] for row in rows]
    assert [len(line["candidates"]) for line in together] == [1 + n % 8 for n in range(16)]
    assert len(fake.calls) < 8 and {temperature for _, temperature in fake.calls} == {0, 1}


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"text": "dull"}, "style"),
        ({"text": "dull", "style": "ugly"}, "learned bad, good"),
        ({"text": "dull", "style": "Good"}, "learned bad, good"),
        ({"text": "dull", "style": ["good"]}, "style"),
        ({"text": " ", "style": "good"}, "text"),
        ({"style": "good"}, "text"),
        ({"text": "dull " * 30_000, "style": "good"}, "150,000 characters"),
        ({"text": "dull", "style": "good", "n": 0}, "n is"),
        ({"text": "dull", "style": "good", "temperature": -1}, "temperature"),
    ],
)
def test_bad_rows_are_told_what_is_wrong(row, said):
    assert said in ask(Restyler(Fake()), **row)["error"]


def test_what_was_done_is_remembered():
    restyler, again = Restyler(Fake("a joy")), Restyler(Fake("a joy"))
    ask(restyler, text="it is dull", style="good")
    again.restore(json.loads(json.dumps(restyler.state())))
    assert again.summary() == restyler.summary() and [section.rows for section in again.sections()]


def test_columns():
    made = learned()
    check_columns(Restyler(Fake("a joy", dataset=made)), {"text": "dull", "style": "good", "id": "1"}, dataset=made)


def test_a_run_at_work(tmp_path, sources):
    """A tiny run, which learned nothing much, answers in the columns of its file, also where that is gone."""
    rows = [{"said": row["text"], "how": row["style"]} for row in TEXTS]
    made, _ = sources(rows, rows[:4], source="said", style="how", length=96, written=16)
    experiment = Experiment(
        steps=2,
        batch_size=4,
        model=ModelConfig(context_length=112, num_layers=1, embed_dim=16, num_heads=2, positions="rotary"),
        data=made.options,
        objective=Supervised(),
        mesh=MeshShape(data=1),
        evaluation=Evaluation(every=0),
        checkpoints=Checkpoints(every=0),
        samples=Samples(tokens=0),
    )
    tiny_runs.train(tiny_runs.start(tmp_path / "run", experiment))
    (tmp_path / "train.jsonl").unlink()
    run = open_run(tmp_path / "run")
    restyler = Restyler(Answering(run, dataset_of(run.experiment)))
    line = ask(restyler, said="the film is truly dull", how="good", n=2, seed=1)
    assert line["marks"][0]["quote"] == "truly dull" and (line["candidates"] or line["cut"])
    assert ask(copy.copy(restyler), said="the film is truly dull", how="good", n=2, seed=1) == line
