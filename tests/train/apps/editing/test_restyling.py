"""What marks a style, what a model reads without it, and which of several texts is given."""

import json
import math
import types

import numpy as np
import pytest

from data.errors import UserError
from data.records.record import Record
from data.tokenizer import character_tokenizer
from model.config import ModelConfig
from tests.train import tiny_runs
from tests.train.apps.columns import check_columns
from train.apps.answering import Answering
from train.apps.editing.edits import CHARACTER, WORD
from train.apps.editing.restyling import GAP, LEAST, PRIOR, Marks, Restyler, Restyling, without
from train.experiment import Checkpoints, Evaluation, Experiment, MeshShape, Samples
from train.objectives.tasks.options import Supervised
from train.runs.directory import open_run
from train.sources.dataset import dataset_of

TEXTS = [
    *({"text": f"the film number{n} is truly dull", "style": "bad"} for n in range(20)),
    *({"text": f"the film number{n} is a joy", "style": "good"} for n in range(20)),
]


@pytest.fixture
def dataset():
    def make(**options):
        return dataset_of(Experiment(data=Restyling(**options), objective=Supervised()))

    return make


@pytest.fixture
def marks(dataset):
    made = dataset()
    return made.marks(made.occurrences([made.example(Record(row, "line")) for row in TEXTS]))


class Fake:
    """As Answering: it writes the texts of a list in turn."""

    reads, tokenizer = ("run", 1, False), types.SimpleNamespace(encode=lambda text: [])

    def __init__(self, dataset, texts=("",)):
        self.dataset, self._texts, self.prompts = dataset, texts, []

    def counted(self, what, of=None):
        return what()

    def learned_from(self):
        return [self.dataset.example(Record(row, "line")) for row in TEXTS]

    def checked(self, example):
        return example

    def fits(self, example):
        return len(example.fields["source"]) < 100

    def continued(self, examples, *, sampling, draws):
        self.prompts += [(one.fields["source"], one.fields["style"], sampling.temperature) for one in examples]
        texts = [self._texts[(seed + number) % len(self._texts)] for seed, number in draws]
        return [types.SimpleNamespace(text=text, log_probs=(-0.5,)) for text in texts]


def ask(restyler, **row):
    (line,) = restyler.answers([Record(row, "line 1")])
    return line


def test_marks_are_words_that_are_more_frequent_in_a_style_than_chance_allows(marks):
    assert {*marks.strongest("bad")} == {"dull", "truly"} and {*marks.strongest("good")} == {"joy", "a"}
    for common in ("the", "film", "is", "number3", "the film"):
        assert common not in (*marks.strongest("bad"), *marks.strongest("good"))


def test_marks_are_those_of_the_closed_form(dataset):
    """Log-odds in standard deviations, as Monroe et al. have them, by hand for a word that is 9 of 100 here and 2 of 300 there."""
    counted = {
        "styles": np.array(["a", "b"]),
        "words": np.array(["word", "other"]),
        "counts": np.array([[9, 91], [2, 298]]),
        "totals": np.array([100, 300]),
    }
    odds = math.log((9 + PRIOR) / (91 + PRIOR)) - math.log((2 + PRIOR) / (298 + PRIOR))
    deviations = odds / math.sqrt(1 / (9 + PRIOR) + 1 / (2 + PRIOR))
    assert Marks(counted, deviations - 1e-6).strongest("a") == ["word"] and Marks(counted, deviations + 1e-6).strongest("a") == []


def test_words_in_a_row_are_a_mark_where_no_part_of_them_is():
    counted = {
        "styles": np.array(["a", "b"]),
        "words": np.array(["dull", "so dull", "one of", "one", "of"]),
        "counts": np.array([[40, 30, 40, 50, 50], [0, 0, 0, 50, 50]]),
        "totals": np.array([1000, 1000]),
    }
    assert Marks(counted, 2.0).strongest("a") == ["dull", "one of"]


def test_words_that_differ_by_little_are_no_marks_however_sure_that_is():
    counted = {
        "styles": np.array(["a", "b"]),
        "words": np.array(["of"]),
        "counts": np.array([[70_000], [60_000]]),
        "totals": np.array([1_000_000, 1_000_000]),
    }
    assert Marks(counted, 2.0).strongest("a") == []


def test_rare_words_are_not_looked_at(dataset):
    made = dataset()
    counted = made.occurrences([made.example(Record({"text": "once twice twice , ,", "style": "a"}, "line"))])
    assert LEAST == 2 and counted["words"].tolist() == ["twice"] and counted["totals"].tolist() == [5 + 4 + 3]


def test_marks_beside_one_another_are_one_gap_and_all_else_stays(marks):
    text = "The  film was TRULY dull!\nA joy."
    places = marks.places(text, ["bad"], WORD)
    assert [text[start:end] for start, end in places] == ["TRULY dull"]
    assert without(text, places) == f"The  film was {GAP}!\nA joy." and without(text, []) == text
    assert [text[start:end] for start, end in marks.places(text, ["bad", "good"], WORD)] == ["TRULY dull", "A joy"]


def test_words_tell_the_style(marks):
    assert marks.nearest("truly a dull thing", WORD) == "bad" and marks.nearest("joy", WORD) == "good"
    assert marks.nearest("", WORD) in marks.styles


def test_languages_without_spaces_are_read_by_characters(dataset):
    made = dataset(language="zh")
    assert made.pattern is CHARACTER
    rows = [{"text": f"这个{word}的", "style": style} for style, word in (("a", "好"), ("b", "坏")) for _ in range(20)]
    marks = made.marks(made.occurrences([made.example(Record(row, "line")) for row in rows]))
    assert without("好的", marks.places("好的", ["a"], CHARACTER)) in (f"{GAP}的", GAP)


@pytest.fixture
def sources(tmp_path):
    """(rows of files to learn from and to test on, options) -> dataset, its sources."""

    def make(learned, held=(), **options):
        character_tokenizer("abcdefghijklmnopqrstuvwxyz0123456789 …,:\nTI").save(str(tmp_path / "tokenizer"))
        for name, rows in (("train", learned), ("held", held)):
            (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        more = {"validation_files": (str(tmp_path / "held.jsonl"),)} if held else {"validation": 0.0}
        data = Restyling(files=(str(tmp_path / "train.jsonl"),), tokenizer=str(tmp_path / "tokenizer"), **more, **options)
        made = dataset_of(Experiment(data=data, objective=Supervised()))
        made.place = tmp_path
        return made, made.open()

    return make


def test_a_model_reads_what_is_left_of_a_text_and_writes_the_text(sources):
    made, opened = sources(TEXTS, [{"text": "a truly dull joy", "style": "bad"}, {"text": "a truly dull joy", "style": "new"}])
    first = made.examples(opened, "train")[0]
    assert (first.fields["source"], first.fields["style"]) == (f"the film number0 is {GAP}", "bad")
    assert made.answer(first) == TEXTS[0]["text"] and made.prompt_text(first) == f"the film number0 is {GAP}\nThe same, bad:\n"
    # Held-out texts have marks taken out that were counted in the others.
    assert [one.fields["source"] for one in made.examples(opened, "validation")] == [f"a {GAP} joy", "a truly dull joy"]
    assert made.elsewhere(("other.jsonl",)).files == made.options.files


def test_one_style_is_too_few(sources):
    made, opened = sources([{"text": "a text", "style": "bad"}] * 3)
    with pytest.raises(UserError, match="one style, bad"):
        made.check(opened)


@pytest.mark.parametrize(("options", "said"), [({"target": "other"}, "its own target"), ({"salience": 0.0}, "above 0")])
def test_options_that_mean_nothing(options, said):
    with pytest.raises(ValueError, match=said):
        Restyling(**options)


# --------------------------------------------------------------------------------------------------------------- the application


def test_of_several_texts_one_in_the_style_that_shares_most(dataset):
    texts = ("the film number3 is dull", "a joy", "", " the film number3 is a joy ", "the film is a joy")
    restyler = Restyler(Fake(dataset(), texts))
    line = ask(restyler, text="the film number3 is truly dull", style="good", n=5)
    assert line["text"] == "the film number3 is a joy" and line["told"] == "good" and line["shared"] == pytest.approx(8 / 12, abs=1e-4)
    assert line["marks"] == [{"start": 20, "end": 30, "quote": "truly dull"}]
    assert [(edit["old"], edit["new"]) for edit in line["edits"]] == [("truly", "a"), ("dull", "joy")] and len(line["candidates"]) == 5
    assert restyler.summary() == {"changed": 1.0, "told": 1.0, "shared": line["shared"]}


def test_a_text_without_marks_of_another_style_stays(dataset):
    restyler = Restyler(Fake(dataset(), ("else",)))
    line = ask(restyler, text="the  film is a joy", style="good")
    assert (line["text"], line["edits"], line["marks"], line["candidates"]) == ("the  film is a joy", [], [], [])
    assert line["shared"] == 1.0 and restyler.summary()["changed"] == 0.0


def test_where_nothing_is_written_the_text_stays(dataset):
    assert ask(Restyler(Fake(dataset())), text="truly dull", style="good")["text"] == "truly dull"


def test_if_no_text_is_in_the_style_the_nearest_is_given_and_that_is_told(dataset):
    restyler = Restyler(Fake(dataset(), ("it is truly dull", "so dull")))
    line = ask(restyler, text="it is truly dull", style="good", n=2)
    assert (line["text"], line["told"]) == ("it is truly dull", "bad") and restyler.summary()["told"] == 0.0


def test_rows_depend_on_themselves_alone(dataset):
    texts = tuple(f"a joy {number}" for number in range(7))
    rows = [Record({"text": f"dull {n}", "style": "good", "seed": n, "n": 1 + n % 3, "temperature": n % 2}, f"line {n}") for n in range(6)]
    together = Restyler(Fake(dataset(), texts)).answers(rows)
    assert together == [Restyler(Fake(dataset(), texts)).answers([row])[0] for row in rows]
    assert [len(line["candidates"]) for line in together] == [1, 2, 3, 1, 2, 3]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"text": "dull"}, "style"),
        ({"text": "dull", "style": "ugly"}, "known are bad, good"),
        ({"text": "dull", "style": ["good"]}, "style"),
        ({"text": " ", "style": "good"}, "text"),
        ({"style": "good"}, "text"),
        ({"text": "dull", "style": "good", "n": 0}, "n is"),
        ({"text": "dull", "style": "good", "temperature": -1}, "temperature"),
    ],
)
def test_bad_rows_are_told_what_is_wrong(dataset, row, said):
    assert said in ask(Restyler(Fake(dataset())), **row)["error"]


def test_a_text_that_is_not_read_whole_says_so(dataset):
    assert ask(Restyler(Fake(dataset(), ("a joy",))), text="dull " + "word " * 30, style="good", n=1)["cut"]


def test_what_was_done_is_remembered(dataset):
    restyler, again = Restyler(Fake(dataset(), ("a joy",))), Restyler(Fake(dataset(), ("a joy",)))
    ask(restyler, text="dull", style="good")
    again.restore(json.loads(json.dumps(restyler.state())))
    assert again.summary() == restyler.summary() and [section.rows for section in again.sections()]


def test_columns(dataset):
    made = dataset()
    check_columns(Restyler(Fake(made, ("a joy",))), {"text": "dull", "style": "good", "id": "1"}, dataset=made)


def test_a_run_at_work(sources, tmp_path):
    """A tiny run, which learned nothing much, answers in the columns of its file, and counts marks once."""
    made, _ = sources([{"said": row["text"], "how": row["style"]} for row in TEXTS], source="said", style="how", length=96, written=16)
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
    run = open_run(tmp_path / "run")
    restyler = Restyler(Answering(run, dataset_of(run.experiment)))
    line = ask(restyler, said="the film is truly dull", how="good", n=2, seed=1)
    assert line["marks"][0]["quote"] == "truly dull" and len(line["candidates"]) == 2
    (tmp_path / "train.jsonl").unlink()
    assert ask(Restyler(Answering(run, dataset_of(run.experiment))), said="the film is truly dull", how="good", n=2, seed=1) == line
