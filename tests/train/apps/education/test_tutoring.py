"""Which move comes next, what is said, and that the solution is not."""

import json
import string
from fractions import Fraction
from types import SimpleNamespace

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from data.errors import UserError
from data.records.record import Record
from data.tokenizer import character_tokenizer
from tests.train.apps.columns import check_columns
from train.apps.education.hints import RUNGS, Problem, _runs, concluded, ladder, leaks, next_step, numbers, steps, told
from train.apps.education.marking import LONGEST
from train.apps.education.tutoring import TURNS, Tutor, Tutoring, says_the_same

QUESTION = "Ann bakes 4 cakes with 6 eggs each. Ben has 10 eggs at home. How many eggs does she need in all if Ben gives his?"
SOLUTION = "She uses 4 * 6 = 24 eggs for the cakes.\nBen gives ten, so she must buy 24 - 10 = $14.00 worth of them.\n 14"
PROBLEM = Problem(QUESTION, SOLUTION)
MOVES = ("focus", "generic", "probing", "telling")


def student(text: str) -> dict:
    return {"who": "student", "text": text}


def teacher(text: str, move: str = "") -> dict:
    return {"who": "teacher", "text": text, "move": move or text}


@pytest.fixture
def tutor(fake, tmp_path):
    """Whose model chooses the move that the teacher's last turn names."""
    path = tmp_path / "problems.jsonl"
    path.write_text(json.dumps({"question": QUESTION, "ground_truth": SOLUTION}) + "\n")
    return Tutor(fake(Tutoring(problems=str(path)), MOVES, []))


def ask(tutor, *turns, **more):
    (line,) = tutor.answers([Record({"question": QUESTION, "ground_truth": SOLUTION, "turns": list(turns)} | more, "line 1")])
    return line


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("$1,200.00 and 3.50", {1200, Fraction(7, 2)}),
        ("1/2 of .5", {Fraction(1, 2), 1, 2}),
        ("twenty-one, a dozen", {20, 21, 1, 12}),
        ("three hundred", {3, 100, 300}),
        ("one hundred and twenty-four", {1, 100, 20, 4, 24, 124}),
        ("two thousand five hundred", {2, 1000, 2000, 5, 100, 500, 2500}),
        ("two dozen", {2, 12, 24}),
        ("five and six", {5, 6}),
        ("one two", {1, 2}),
        ("24.", {24}),
        ("12-5=7", {12, 5, 7}),
        ("５", {5}),
        ("5/0", {5, 0}),
        ("nothing", set()),
    ],
)
def test_numbers_in_digits_and_words(text, values):
    assert numbers(text) == values


@pytest.mark.parametrize(
    ("text", "held"),
    [
        ("It is 24.", True),
        ("It is twenty-four.", True),
        ("It is 24.0 eggs", True),
        ("You get $ 14", True),
        ("Is it 72/3?", True),
        ("Think of 4 and 6.", False),
        ("You said 30.", False),
        ("So she must buy some of them", True),
        ("What does she need?", False),
    ],
)
def test_a_filter_finds_results_and_phrases_of_the_solution(text, held):
    """72/3 is twenty-four as well."""
    assert bool(leaks(text, PROBLEM, ["It is 30."])) == held


def test_what_the_pupil_said_is_no_secret():
    assert not leaks("You have 24 now.", PROBLEM, ["I get 24"]) and leaks("You have 14 now.", PROBLEM, ["I get 24"])


def test_steps_come_one_after_the_other():
    assert [(step.left, step.right) for step in steps(PROBLEM)] == [("4 * 6", "24"), ("24 - 10", "$14.00")]
    assert next_step(PROBLEM, ["?"]).right == "24" and next_step(PROBLEM, ["24"]).right == "$14.00"
    assert next_step(PROBLEM, ["24, so 14"]) is None and "4 * 6 = 24" in told(PROBLEM, ["?"])


@given(st.text(max_size=60), st.text(max_size=60), st.lists(st.text(max_size=20), max_size=2), st.sampled_from(RUNGS), st.integers(0, 20))
@settings(max_examples=150)
def test_any_text_makes_a_hint(question, solution, said, rung, turn):
    hint = ladder(Problem(question or "x", solution or "x"), said, rung, turn)
    assert isinstance(hint, str) and hint


@given(st.lists(st.sampled_from(["24", "14", "30", "I add 4 and 6", "no idea", "ten"]), min_size=1, max_size=4), st.integers(0, 9))
def test_no_rung_tells_a_result(said, turn):
    for rung in RUNGS:
        assert not leaks(ladder(PROBLEM, said, rung, turn), PROBLEM, said)


def test_a_blank_stands_for_every_number_that_is_not_known():
    assert ladder(Problem("Share them among 3.", "24 / 3 = 8\n 8"), ["no"], "blank", 0) == "Fill in what is missing: ___ / 3 = ___"


def test_rungs_follow_moves_and_rise_where_a_pupil_is_stuck(tutor):
    assert ask(tutor, teacher("probing"), student("I do not know"))["rung"] == "question"
    assert ask(tutor, teacher("telling"), student("I do not know"))["answer"].startswith("Fill in what is missing: 4 * 6 = ___")
    stuck = [turn for _ in range(4) for turn in (teacher("probing"), student("no"))]
    assert RUNGS.index(ask(tutor, *stuck)["rung"]) == 2
    helped = [*stuck[:-1], student("I have 24")]
    assert ask(tutor, *helped)["rung"] == "question"


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("So it is fourteen.", True),
        ("24 - 10 = $14.00", True),
        ("It is 14, isn't it?", True),
        ("It is $14 million", True),
        ("It is 14, a hundred", False),
        ("So it is 15", False),
        ("I get 14, and 14 + 10 = 24", False),
        ("14 or twenty", False),
        ("no idea", False),
    ],
)
def test_a_right_answer_is_told_so_and_a_wrong_one_is_not(tutor, text, right):
    assert concluded(text, PROBLEM) == right
    assert (ask(tutor, teacher("focus"), student(text))["rung"] == "done") == right


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("It is -5", True),
        ("3 - 8 = -5", True),
        ("minus five", True),
        ("-$5", True),
        ("negative 5", True),
        ("5", False),
        ("It is 5", False),
        ("10 - 5", False),
        ("8-5", False),
        ("eight minus five", False),
        ("(3 + 5) - 5", False),
        ("It is between year-5 and 5", False),
        ("It is −5", True),
    ],
)
def test_signs_count(text, right):
    assert concluded(text, Problem("Three degrees, and then it falls by 8.", "3 - 8 = -5\n -5")) == right


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("It is certainly not 14", False),
        ("It isn't 14", False),
        ("It can't be 14.", False),
        ("I never get 14", False),
        ("It is not 15, it is 14", True),
        ("not 15 but 14", True),
        ("Isn't it 14?", True),
        ("So it is certainly 14, not more", True),
        ("It is 4 + ten = 14, one hundred percent", False),
    ],
)
def test_an_answer_that_is_denied_is_none(text, right):
    assert concluded(text, PROBLEM) == right


def test_a_number_in_many_words_is_a_secret():
    problem = Problem("How many are there?", "100 + 24 = 124\n 124")
    assert leaks("So it is one hundred and twenty-four.", problem, ["100 and 24"])
    assert concluded("It is one hundred and twenty-four", problem) and not concluded("It is one hundred and twenty", problem)


@pytest.mark.parametrize("text", ["1" * 50_000, "1+" * 25_000, "1 + (2) x" * 5_000, "hundred " * 5_000, "1,111" * 10_000, "1." * 25_000])
def test_texts_that_are_made_to_last_are_read_at_once(text):
    """Patterns that try everything twice would need hours, and whole numbers of many digits are refused by Python."""
    problem = Problem(text, f"{text}\n{text}")
    assert isinstance(concluded(text, problem), bool) and isinstance(leaks(text, problem, [text]), list)
    assert isinstance(steps(problem), list) and isinstance(numbers(text), frozenset)


def test_texts_of_a_dialogue_are_cut_and_its_last_turns_kept(tutor):
    long = {"question": "q " * 9_000, "ground_truth": "s " * 9_000, "turns": [student(f"{number} " + "x" * 9_000) for number in range(500)]}
    record = Record(long, "line 1")
    assert [len(text) for text in tutor._dataset.problem_of(record)] == [LONGEST, LONGEST]
    turns = tutor._dataset.turns_of(record)
    assert len(turns) == TURNS and turns[-1].text.startswith("499 ") and len(turns[0].text) == LONGEST


def test_what_was_said_is_read_once(monkeypatch):
    """However many hints are looked at."""
    read = []
    for kept in (numbers, _runs):
        kept.cache_clear()
    monkeypatch.setattr(
        "train.apps.education.hints.SPOKEN", SimpleNamespace(finditer=lambda text: read.append(text) or iter(()), findall=lambda text: [])
    )
    said = [f"unheard words of turn {number}" for number in range(20)]
    for rung in RUNGS * 3:
        leaks(ladder(PROBLEM, said, rung, 0), PROBLEM, said)
    for kept in (numbers, _runs):  # of what the other tests read
        kept.cache_clear()
    assert sorted(text for text in read if text in said) == sorted(said)


def test_columns_of_other_names(fake, tmp_path):
    path = tmp_path / "problems.jsonl"
    path.write_text(json.dumps({"question": QUESTION, "ground_truth": SOLUTION}) + "\n")
    tutor = Tutor(fake(Tutoring(problems=str(path), text="utterance", label="act"), MOVES, []))
    assert tutor.reply([QUESTION, "so 24", "it is 14"])["rung"] == "done"


def test_counts_are_those_of_before_a_talk_also_where_it_fails(tutor, monkeypatch):
    before = tutor.state()

    def fails(rows):
        tutor._counts["rows"] += 1
        raise RuntimeError

    monkeypatch.setattr(tutor, "answers", fails)
    with pytest.raises(RuntimeError):
        tutor.reply([QUESTION, "so 24"])
    assert tutor.state() == before


def test_several_moves_of_one_dialogue_are_no_units_by_themselves(fake, tmp_path):
    """A promise for each move would be one for a part of what is known of a student."""
    path = tmp_path / "dialogues.jsonl"
    turns = [student("I get 20"), teacher("first words", "probing"), student("so 24"), teacher("second words", "focus")]
    row = {"question": QUESTION, "ground_truth": SOLUTION, "turns": turns, "student": "Kim", "text": "nothing"}
    path.write_text("".join(json.dumps(row | {"student": name}) + "\n" for name in ("Kim", "Lee", "Kim")))
    dataset = fake(Tutoring(files=(str(path),), validation=0.0), MOVES, []).dataset
    sources = dataset.open(character_tokenizer(string.printable))
    assert {one.fields["student"] for one in dataset.examples(sources, "train")} == {"Kim", "Lee"}
    assert "nothing" not in {one.fields["text"] for one in dataset.examples(sources, "train")}
    with pytest.raises(UserError, match="several examples of one row"):
        dataset.units(sources)
    assert dataset.units(sources, "student").size == 2


def test_an_answer_that_the_problem_has_must_be_what_something_is_equal_to():
    problem = Problem("Take 5 of 10.", "10 - 5 = 5\n 5")
    assert concluded("10 - 5 = 5", problem) and not concluded("I take 5", problem)


def test_a_hint_that_gives_something_away_is_held_back(tutor, monkeypatch):
    told = "train.apps.education.tutoring.ladder"
    monkeypatch.setattr(told, lambda problem, said, rung, turn: "It is 24." if rung != "question" else "Why?")
    line = ask(tutor, teacher("telling"), student("no"))
    assert line["answer"] == "Why?" and line["rung"] == "question" and line["held_back"] == 2
    monkeypatch.setattr("train.apps.education.tutoring.ladder", lambda *_: "It is 24.")
    line = ask(tutor, teacher("telling"), student("no"))
    assert "24" not in line["answer"] and line["held_back"] == 3


def test_words_of_a_model_are_filtered_too(tutor, monkeypatch):
    tutor._writer = ("generator", "run")
    monkeypatch.setattr(Tutor, "_worded", lambda self, hint: "Maybe 24?")
    line = ask(tutor, teacher("probing"), student("no"))
    assert "24" not in line["answer"] and line["held_back"] == 1
    monkeypatch.setattr(Tutor, "_worded", lambda self, hint: "Which numbers help you?")
    assert ask(tutor, teacher("probing"), student("no"))["answer"] == "Which numbers help you?"


def test_words_of_a_model_must_say_the_hint():
    hint = "Fill in what is missing: 4 * 6 = ___"
    assert says_the_same("Can you fill in what is missing here? 4 * 6 = ___", hint)
    for wrong in ("", "I am a kind tutor.", "Fill in what is missing: 4 * 6", "Fill in what is missing: 4 * 7 = ___"):
        assert not says_the_same(wrong, hint)


def test_a_conversation_on_the_chat_page(tutor):
    assert "Which problem" in tutor.reply(["hello"])["answer"]
    assert tutor.reply([QUESTION])["rung"] == "talk"
    before = tutor.state()
    turns = [QUESTION, "I add all and get 20 probing", "no"]
    line = tutor.reply(turns)
    assert line == tutor.reply(turns) and tutor.state() == before and not leaks(line["answer"], PROBLEM, turns[1:])
    assert tutor.reply([QUESTION, "so 24", "it is 14"])["rung"] == "done"


def test_moves_of_a_file(fake):
    """The dialogue before a move is read, never the move nor what comes after; or the teacher's text alone."""
    row = {"question": QUESTION, "ground_truth": SOLUTION}
    turns = [teacher("first words", "probing"), student("I get 20"), teacher("second words", "focus"), student("I get 14")]
    record = Record(row | {"turns": turns}, "line 1")
    first, second = fake(Tutoring(), MOVES, []).dataset.moves(record)
    assert (first.label, second.label) == ("probing", "focus")
    assert "first words" in second.fields["text"] and second.fields["pair"] == "I get 20"
    assert "second words" not in str(second.fields) and "focus" not in second.fields["text"] and "14" not in second.fields["text"]
    own = fake(Tutoring(reads="text"), MOVES, []).dataset.moves(record)
    assert [one.fields["text"] for one in own] == ["first words", "second words"]


def test_dialogues_of_one_problem_stay_together(fake):
    dataset = fake(Tutoring(), MOVES, []).dataset
    row = {"question": QUESTION, "ground_truth": SOLUTION, "turns": [teacher("a", "focus"), student("b"), teacher("c", "telling")]}
    assert len({dataset.key(example) for example in dataset.moves(Record(row, "line 1"))}) == 1


def test_wrong_rows_have_their_error_and_stop_nothing(tutor):
    good = {"question": QUESTION, "ground_truth": SOLUTION, "turns": [student("no")], "move": "focus"}
    rows = [{}, good | {"turns": "x"}, good | {"turns": [{"who": "cat", "text": "x"}]}, good | {"ground_truth": ""}, good]
    lines = tutor.answers([Record(row, f"line {n}") for n, row in enumerate(rows)])
    assert ["error" in line for line in lines] == [True] * 4 + [False] and "accuracy" in tutor.summary()
    again = json.loads(json.dumps(tutor.state()))
    tutor.restore(again)
    assert [one.title for one in tutor.sections()]
    with pytest.raises(UserError, match="turns"):
        tutor._dataset.turns_of(Record({"turns": [5]}, "line 1"))


def test_the_row_by_which_it_is_compiled_has_an_answer(tutor):
    made = tutor
    (line,) = made.answers([Record(made.example, "row 1")])
    assert "error" not in line


def test_its_columns_are_what_it_reads(tutor):
    check_columns(tutor, {"question": QUESTION, "ground_truth": SOLUTION, "turns": []}, dataset=tutor._dataset)
