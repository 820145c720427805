"""What is written to a sheet, and what is not said."""

import json
import types

import pytest

from data.errors import UserError
from data.records.record import Record
from tests.train.apps.columns import check_columns
from train.apps.writing.story import Story, Writer, choices_of, contradictions
from train.experiment import Experiment
from train.runs.directory import defaults
from train.tasks.writing import AT_ONCE

SIZES, KINDS = ("Large", "Small", "Tiny"), ("beast", "dragon")
SHEETS = [(("size", SIZES[n % 3]), ("kind", KINDS[n % 2]), ("name", f"Name{n}"), ("level", str(n % 3))) for n in range(30)]
CHOICES = {"size": ["large", "small", "tiny"], "kind": ["beast", "dragon"]}
WORLD = {
    "start": "gate",
    "rooms": {"gate": {"text": "You are at the gate.", "exits": {"north": "hall"}}, "hall": {"exits": {"south": "gate"}}},
    "things": {"lamp": {"at": "gate"}, "crown": {"at": "hall"}},
}


class Fake:
    """As Answering: it writes the texts of a list in turn."""

    reads, run = ("run", 1, False), types.SimpleNamespace(path="run", corpora=list)

    def __init__(self, dataset, texts):
        self.dataset, self._texts = dataset, texts
        self.prompts, self.calls = [], []

    def continued(self, examples, *, sampling, draws):
        self.prompts += [one.fields["source"] for one in examples]
        self.calls.append((sampling.temperature, draws))
        made = [self._texts[(seed + number) % len(self._texts)] for seed, number in draws]
        return [types.SimpleNamespace(text=text, log_probs=(score,)) for text, score in made]

    def example_of(self, row):
        return self.dataset.example(Record({name: value for name, value in row.items() if name != "text"}, row.where))

    def learned(self, what, of=None):
        return CHOICES


@pytest.fixture
def writer(fake, tmp_path):
    def make(*texts, world=None):
        (tmp_path / "world.json").write_text(json.dumps(WORLD))
        path = str(tmp_path / "world.json") if world else ""
        dataset = fake(Story(controls=("size", "kind", "name"), world=path), (), []).dataset
        return Writer(Fake(dataset, texts))

    return make


def ask(writer, **row):
    (line,) = writer.answers([Record(row, "line 1")])
    return line


SHEET = {"size": "Large", "kind": "dragon", "name": "Ash"}


def test_choices_are_facts_of_few_values():
    assert choices_of([(sheet, "It is quiet.") for sheet in SHEETS]) == CHOICES  # a name is its own, a level no word


def test_words_that_texts_use_otherwise_tell_nothing():
    """A value is one of a choice as long as at most one in ten of the texts that name it have sheets with another."""
    told = [(sheet, f"A {sheet[0][1]} thing.") for sheet in SHEETS]
    assert choices_of(told) == CHOICES
    once = [(sheet, f"{text} It hides in a large hall." if number == 1 else text) for number, (sheet, text) in enumerate(told)]
    assert choices_of(once) == CHOICES
    often = [(sheet, f"{text} It hides in a large hall." if number < 6 else text) for number, (sheet, text) in enumerate(told)]
    assert choices_of(often) == CHOICES | {"size": ["small", "tiny"]}
    # What the sheet says itself is no other use.
    noted = [((*sheet, ("note", "Not large.")), f"{text} Not large.") for sheet, text in told]
    assert choices_of(noted) == CHOICES


def test_values_that_are_no_words_leave_the_others_choices():
    values = ("chaotic evil", "lawful evil", "any non-good", "good (50%) or evil (50%)", "x", "10 feet")
    sheets = [((("mind", value),), "It is quiet.") for value in values for _ in range(3)]
    assert choices_of(sheets) == {"mind": ["any non-good", "chaotic evil", "lawful evil"]}


def test_a_value_in_the_plural_is_named_by_its_singular():
    choices, ring = {"category": ["ring", "wondrous items"]}, (("category", "Ring"),)
    assert contradictions(ring, choices, "Wondrous item, rare.") == ["category: wondrous items"]
    assert contradictions((("category", "Wondrous items"),), choices, "A wondrous item. Two rings.") == []
    assert contradictions((("kind", "Spell"),), {"kind": ["glass", "spell"]}, "A glas.") == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("A large dragon.", []),
        ("A tiny dragon, small as a beast.", ["size: small", "size: tiny", "kind: beast"]),
        ("Smaller than others.", []),
    ],
)
def test_contradictions(text, found):
    assert contradictions(tuple(SHEET.items()), CHOICES, text) == found
    assert contradictions((*SHEET.items(), ("note", "not tiny, a small beast")), CHOICES, text) == []


def test_what_a_sheet_lacks_is_filled_from_others_where_a_row_asks(writer):
    made = writer(("A thing.", -0.5))
    made._answering.learned_from = lambda: [types.SimpleNamespace(parts=sheet) for sheet in SHEETS]
    line = ask(made, kind="dragon", name="Ash", fill=True, n=1)
    assert line["sheet"]["size"] in SIZES and {**line["sheet"], "kind": "dragon", "name": "Ash"} == line["sheet"]
    assert "size" not in ask(made, kind="dragon", fill="", n=1)["sheet"] and "fill" in ask(made, kind="dragon", fill="yes", n=1)["error"]
    assert ask(made, kind="dragon", fill="True", n=1)["sheet"] == ask(made, kind="dragon", fill=True, n=1)["sheet"]
    assert {ask(made, kind="dragon", fill=True, n=1, seed=seed)["sheet"]["size"] for seed in range(20)} == {*SIZES}


def test_a_sheet_that_contradicts_itself_is_refused(writer):
    made = writer(("A large thing.", -0.5))
    assert "large and small" in ask(made, **SHEET | {"size": ["Small", "large"]}, n=1)["error"]
    assert "text" in ask(made, **SHEET | {"size": ["large", "Large "], "name": ["Ash", "Ember"]}, n=1)


def test_of_several_texts_the_first_that_contradicts_nothing(writer):
    """However likely the others are."""
    made = writer(("A tiny thing.", -0.1), ("A large thing.", -0.5), ("It is large.", -0.2), ("big " * 40, -0.1))
    line = ask(made, **SHEET, n=4)
    assert line["text"] == "A large thing." and line["candidates"][0]["contradictions"] == ["size: tiny"] and line["candidates"][3]["loops"]
    assert made.summary()["contradicting"] == 0.25 and made.summary()["looping"] == 0.25


def test_texts_in_a_loop_and_empty_ones_come_last(writer):
    assert ask(writer(("big " * 40, -0.1), ("", -0.1), ("It flies.", -3.0)), **SHEET, n=3)["text"] == "It flies."
    assert ask(writer(("It is tiny. It flies.", -0.1), ("big " * 40, -0.1)), **SHEET, n=2)["candidates"][1]["loops"]


def test_if_all_contradict_what_does_is_left_out(writer):
    assert ask(writer(("It is tiny. It flies. A small beast!", -1.0)), **SHEET)["text"] == "It flies."


def test_a_text_is_told_its_facts_in_order(writer):
    made = writer(("x", 0.0))
    ask(made, kind="dragon", name=["Ash", 3], size=None, n=1)
    assert made._answering.prompts == ["kind: dragon\nname: Ash, 3"]


def test_texts_that_are_drawn_alike_are_drawn_together(writer):
    """One call for each way of drawing; every row has the texts of its own seed, as if it stood alone."""
    texts = [(f"Text {number}.", -number / 10) for number in range(9)]
    rows = [
        Record(SHEET | own, "line")
        for own in ({"n": 2, "seed": 3}, {"n": 1, "temperature": 2}, {"size": {}}, {"n": 3, "seed": 5}, {"n": 2, "temperature": 2})
    ]
    made = writer(*texts)
    lines = made.answers(rows)
    assert made._answering.calls == [(0.8, [(3, 0), (3, 1), (5, 0), (5, 1), (5, 2)]), (2, [(0, 0), (0, 0), (0, 1)])]
    assert lines == [writer(*texts).answers([row])[0] for row in rows]
    assert [len(line.get("candidates", ())) for line in lines] == [2, 1, 0, 3, 2]


def test_not_too_many_texts_are_drawn_together(writer):
    made = writer(("One.", -0.1), ("Two.", -0.2), ("Three.", -0.3))
    lines = made.answers([Record(SHEET | {"n": 8, "seed": number}, "line") for number in range(9)])
    assert [len(draws) for _, draws in made._answering.calls] == [AT_ONCE, AT_ONCE, 8]
    assert [line["text"] for line in lines] == ["One.", "Two.", "Three."] * 3


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({}, "has none of"),
        (SHEET | {"n": 0}, "n is '0'"),
        (SHEET | {"n": 1.5}, "n is '1.5'"),
        (SHEET | {"temperature": 10**400}, "temperature"),
        (SHEET | {"name": "a\ud800"}, "surrogate"),
        (SHEET | {"seed": True}, "seed"),
        (SHEET | {"temperature": "x"}, "temperature"),
        (SHEET | {"top_p": 0}, "top_p"),
        (SHEET | {"name": {"a": 1}}, "name"),
        ({"command": "look"}, "no world"),
    ],
)
def test_rows_that_are_none(writer, row, said):
    lines = writer(("ok", 0.0)).answers([Record(row, "line 1"), Record(SHEET | {"id": 2}, "line 2")])
    assert said in lines[0]["error"] and lines[1]["text"] == "ok" and lines[1]["id"] == 2


def test_an_adventure_is_kept_by_the_program(writer):
    made = writer(("The crown shines.", -0.1), ("The lamp shines.", -0.2), ("The lamp sh", -0.1), world=True)
    first = ask(made, command="take lamp", conversation="a")
    assert first["happened"] == "You take the lamp." and first["text"] == "You take the lamp. The lamp shines."
    assert first["refused"][0] == "crown is not here" and first["state"]["things"]["lamp"] == ""
    assert ask(made, command="take lamp", conversation="a")["done"] is False
    assert ask(made, command="take lamp", conversation="b")["done"] is True
    assert ask(made, command="north", conversation="a")["state"]["room"] == "hall"
    assert made.summary()["commands"] == 4 and made.summary()["done"] == 0.75
    again = writer(("The lamp shines.", 0.0), world=True)
    again.restore(json.loads(json.dumps(made.state())))
    assert again.summary() == made.summary()
    state = {"room": "gate", "things": {"lamp": "", "crown": "hall"}, "opened": [], "over": False}
    assert ask(again, command="s", conversation="a")["state"] == state


def test_replies_depend_on_the_conversation_alone(writer):
    made = writer(("Quiet.", 0.0), world=True)
    before = made.state()
    assert made.reply(["take lamp", "north", "inventory"])["happened"] == "You have: lamp."
    assert made.reply(["inventory"])["happened"] == "You have: nothing." and made.state() == before
    plain = writer(("A story.", 0.0))
    assert plain.reply(["Large"])["answer"] == "A story." and plain.state()["texts"] == []


def test_texts_are_learned_with_their_sheets(writer):
    dataset = writer(("x", 0.0))._answering.dataset
    example = dataset.example(Record(SHEET | {"text": "A tale."}, "line"))
    assert example.label == ("A tale.",) and dataset.answer(example) == "A tale."
    made = Writer.__new__(Writer)
    made._answering = types.SimpleNamespace(learned_from=lambda: [example._replace(parts=one, label=("Large.",)) for one in SHEETS])
    assert made._learn() == CHOICES | {"size": ["small", "tiny"]}  # all texts say Large
    with pytest.raises(UserError, match="text"):
        dataset.example(Record(SHEET | {"text": ""}, "line"))


def test_games_are_bounded_and_those_without_a_name_begin_anew(writer, monkeypatch):
    monkeypatch.setattr("train.apps.writing.story.GAMES", 3)
    made = writer(("Quiet.", 0.0), world=True)
    for number in range(5):
        ask(made, command="take lamp", conversation="c" * 1000 + str(number))
    assert len(made.state()["games"]) == 1  # names are cut
    for number in range(5):
        ask(made, command="take lamp", conversation=str(number))
    assert [*made.state()["games"]] == ["2", "3", "4"]
    assert all(ask(made, command="take lamp", conversation=None)["done"] for _ in range(2))


def test_an_empty_text_is_an_answer_too(writer):
    assert writer(("It is tiny.", 0.0)).reply(["Large"])["answer"] == ""


def test_games_are_of_one_world(writer):
    assert writer(("x", 0.0), world=True).reads != writer(("x", 0.0)).reads


def test_a_score_is_a_mean_over_tokens(writer):
    made = writer(("One.", 0.0))
    made._answering.continued = lambda examples, **options: [
        types.SimpleNamespace(text="Long and likely.", log_probs=(-0.2,) * 10),
        types.SimpleNamespace(text="Short.", log_probs=(-1.0,)),
    ]
    assert [one["score"] for one in ask(made, **SHEET, n=2)["candidates"]] == [-0.2, -1.0]


def test_a_story_has_facts(fake):
    """Options without them can be made, because a run keeps the defaults beside its own; a run that has none is refused."""
    assert defaults(Experiment(data=Story(controls=("kind",)))).data == Story()
    with pytest.raises(UserError, match="names no columns"):
        fake(Story(), (), []).dataset.check([])
    with pytest.raises(UserError, match="data.files is empty"):
        fake(Story(controls=("kind",)), (), []).dataset.check([])


def test_its_columns_are_what_it_reads(writer):
    some = writer(("It is so.", 0.0), world=True)
    check_columns(some, SHEET, {"command": "go north", "conversation": "a"}, dataset=some._answering.dataset)
    assert {*some.columns} - {*writer(("It is so.", 0.0)).columns} == {"command", "conversation"}
