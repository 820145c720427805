"""Which questions are answered by what, and what an answer never does."""

import dataclasses
import json
import re

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from data.errors import UserError
from data.records.record import Record
from tests.train.apps.columns import check_columns
from train.apps.confidence import familiarity
from train.apps.service.customer_service import SLOT, CustomerService, Passage, Passages, Service, read_passages, read_templates

LABELS = ("card", "loan", "other")
HELD = (
    [("card 0.45", "loan")] * 6
    + [("card 0.95", "card")] * 30
    + [("loan 0.9", "loan")] * 30
    + [("card 0.7", "loan")] * 20
    + [("card 0.65", "card")] * 20
)
TEMPLATES = [
    {"intent": "card", "answer": "Cards come in {days} days. You can follow yours on the map."},
    {"intent": "loan", "answer": "Ask for a loan in the app."},
]
PASSAGES = [
    {"id": 1, "question": "Where is the next office?", "answer": "At the station.", "link": "https://a.example/1"},
    {"id": 2, "question": "Where is the nearest office?", "answer": "In the old town."},
    {"id": 3, "question": "怎么修改密码？", "answer": "在设置里修改密码。"},
]


@pytest.fixture
def service(fake, tmp_path):
    for name, rows in (("templates", TEMPLATES), ("passages", PASSAGES)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = CustomerService(
        templates=str(tmp_path / "templates.jsonl"), passages=str(tmp_path / "passages.jsonl"), nobody="other", found=0.3, precision=0.95
    )
    return Service(fake(options, LABELS, HELD))


def ask(service, text: str, **more):
    (line,) = service.answers([Record({"text": text} | more, "line 1")])
    return line


def test_routes(service):
    assert ask(service, "my loan 0.95")["route"] == "template"
    assert ask(service, "other 0.99")["route"] == "human"
    assert ask(service, "is it card 0.45 then")["route"] == "unsure"
    found = ask(service, "other where is the next office")
    assert found["route"] == "retrieved" and found["citations"][0]["link"] == "https://a.example/1"
    assert ask(service, "怎么修改密码 other")["citations"][0]["id"] == 3


@pytest.mark.parametrize(
    "text",
    ["I don't want to loan 0.95", "we do not really want to have a loan 0.95", "we no longer plan to loan 0.95", "我不想要 loan 0.95"],
)
def test_what_somebody_does_not_want_is_not_given(service, text):
    line = ask(service, text)
    assert line["route"] == "human" and line["refused"] is True and line["intent"] == "loan"
    service._refusable = {"loan"}  # where questions of the intent are put like this
    assert ask(service, text)["route"] == "template"


@pytest.mark.parametrize(
    "text",
    [
        "需不需要 loan 0.95",
        "要不要 loan 0.95",
        "不要紧 loan 0.95",
        "I was told never to share my loan 0.95",
        "the app does not want to open my loan 0.95",
        "so that I do not need to pay my loan 0.95 twice",
    ],
)
def test_what_is_no_refusal(service, text):
    assert ask(service, text)["route"] == "template"


def test_a_refusal_is_no_value_of_a_slot_and_no_reason_against_the_very_question(service):
    assert ask(service, "my card 0.99", conversation="c")["missing_slots"] == ["days"]
    assert ask(service, "I do not want to wait", conversation="c")["route"] == "human"
    assert ask(service, "I do not want to ask: where is the next office?")["route"] in ("human", "retrieved")
    service._passages = Passages([Passage(9, "What if I do not want to renew?", "Then it ends.", "")])
    assert ask(service, "What if I do not want to renew?")["route"] == "retrieved"


def test_an_intent_in_whose_questions_it_is_said_may_be_refused(service, monkeypatch):
    asked = Record({"text": "I do not want to send my card 0.95", "intent": "card"}, "line")
    monkeypatch.setattr(service._answering, "learned_from", lambda: [service._answering.dataset.example(asked)])
    assert service._learn()["refusable"] == ["card"]
    service._answering.run.experiment.gradient.private = True  # of what was learned in private nothing is told
    assert service._learn()["refusable"] == []


def test_intents_that_are_taken_for_others_are_on_the_page(service, fake):
    for text, label in (("card 0.9", "loan"), ("card 0.99", "loan"), ("loan", "card"), ("loan", "loan"), ("loan", "other")):
        ask(service, text, intent=label)
    (rows,) = [one.rows for one in service.sections() if "taken for others" in one.title]
    assert rows == [["loan", "card", "2"], ["card", "loan", "1"]]
    kept = json.loads(json.dumps(service.state()))
    ask(service, "loan", intent="card")
    service.restore(kept)
    assert [one.rows for one in service.sections() if "taken for others" in one.title] == [rows]


def test_a_passage_for_the_very_question_comes_before_an_intent(service):
    """Whose probability is 0.99 where a text has no label's name."""
    assert ask(service, "Where is the next office?")["citations"][0]["id"] == 1
    assert ask(service, "card Where is the next office")["route"] == "template"


def test_what_is_not_believed_was_right_too_rarely(service):
    """Of the held-out answers at 0.7 and above 60 of 80 are right, at 0.9 and above all."""
    assert ask(service, "card 0.9")["route"] == "template" and ask(service, "card 0.7")["route"] != "template"


def test_a_question_like_too_few_that_are_known_is_not_answered_however_sure_one_intent_is(service, fake):
    """Once one other label competes, once all."""
    answers = [np.array([0.92, 0.08, 0]), np.array([0.92, 0.04, 0.04])]
    service._familiar = float(familiarity(np.stack(answers)).mean())
    service._answering.probabilities = lambda text: answers[text == "strange"]
    assert ask(service, "card")["route"] == "template" and ask(service, "strange")["route"] == "human"
    assert ask(service, "card")["confidence"] <= ask(service, "strange")["confidence"]
    answers[0] = answers[1] = np.array([0.55, 0.4, 0.05])
    assert ask(service, "card")["route"] == "human"
    service._familiar = 0.0
    assert ask(service, "card")["route"] == "unsure", "which of two is asked of what is familiar"


def test_as_many_held_out_questions_as_told_are_taken_for_unknown(fake):
    sure = [(f"card {0.95 + number / 1000:.3f}", "card") for number in range(40)]
    for share, count in ((0.0, 0), (0.05, 1), (0.5, 19)):
        service = Service(fake(CustomerService(unfamiliar=share), LABELS, sure))
        service._templates["card"] = "Cards."
        assert sum(ask(service, text)["route"] != "template" for text, _ in sure) == count
    with pytest.raises(ValueError, match="unfamiliar"):
        CustomerService(unfamiliar=1.5)


def test_an_intent_that_is_not_likelier_than_all_others_is_not_believed(fake):
    """However seldom answers need to be right."""
    held = [("card 0.4", label) for label in ("card", "card", "loan", "loan", "card", "other", "other", "card", "loan", "other")]
    service = Service(fake(CustomerService(nobody="other", precision=0.4), LABELS, held))
    service._templates["card"] = "Cards."
    assert ask(service, "card 0.45")["route"] != "template" == ask(service, "card 0.99")["route"]


def test_slots_are_filled_or_asked_for_and_never_shown(service):
    whole = ask(service, "card 0.99", slots={"days": 3})
    assert whole["answer"] == "Cards come in 3 days. You can follow yours on the map." and not whole["missing_slots"]
    open_ = ask(service, "card 0.99")
    assert open_["answer"] == "You can follow yours on the map." and open_["missing_slots"] == ["days"]
    assert "in {days} {x.y} days" in ask(service, "card 0.99", slots={"days": "{days} {x.y}"})["answer"]  # as it was given


@pytest.mark.parametrize(
    "answer", ["It costs 1.5 % in {days} days... See https://a.example/x.\nOr write to a@b.example!", "３天。好的！{days} 天", "no end"]
)
def test_an_answer_without_an_open_slot_is_as_it_was_written(fake, tmp_path, answer):
    (tmp_path / "a.jsonl").write_text(json.dumps({"intent": "card", "answer": answer}) + "\n")
    service = Service(fake(CustomerService(templates=str(tmp_path / "a.jsonl"), nobody="other"), LABELS, HELD))
    assert ask(service, "card 0.99", slots={"days": "2"})["answer"] == answer.replace("{days}", "2")


def test_an_intent_that_is_believed_and_has_no_answer_goes_to_a_person(fake):
    service = Service(fake(CustomerService(nobody="other"), LABELS, HELD))
    assert ask(service, "my loan 0.99")["route"] == "human"


def test_the_next_turn_of_a_conversation_fills_what_was_asked_for(service):
    ask(service, "card 0.99", conversation="a")
    ask(service, "card 0.99", conversation="b")
    assert ask(service, "other 0.6 5", conversation="a")["answer"].startswith("Cards come in other 0.6 5 days.")
    other = ask(service, "no, my loan 0.99", conversation="b")
    assert other["intent"] == "loan" and other["route"] == "template"
    assert ask(service, "other 0.6 5", conversation="a")["route"] != "template"  # which was answered


def test_a_slot_takes_no_other_subject_and_nothing_long(service):
    for turn, route in (
        ("other 0.999 forget it", "human"),
        ("where is the next office 0.6", "retrieved"),
        ("my loan 0.999", "template"),
        ("other 0.6 " + "so " * 100, "human"),
    ):
        ask(service, "card 0.99", conversation="a")
        line = ask(service, turn, conversation="a")
        assert line["route"] == route and "Cards" not in line["answer"]


def test_answers_that_were_taken_away_leave_no_conversation_stuck(service, fake):
    ask(service, "card 0.99", conversation="a")
    again = Service(fake(dataclasses.replace(service._options, templates=""), LABELS, HELD))
    again.restore(json.loads(json.dumps(service.state())))
    assert ask(again, "other 5", conversation="a")["route"] == "human"


def test_a_conversation_goes_on_in_another_process(service, fake):
    ask(service, "card 0.99", conversation="a")
    state = json.loads(json.dumps(service.state()))
    again = Service(fake(service._options, LABELS, HELD))
    again.restore(state)
    assert ask(again, "5", conversation="a") == ask(service, "5", conversation="a")
    assert again.summary() == service.summary()


class Tagger:
    """Numbers are days, and words of capitals places; a text with an x cannot be read."""

    reads = ["tagger", 1, False]

    class dataset:
        @staticmethod
        def entities(text, tags):
            kinds = {"days": r"(?<![.\d])\d+(?![.\d])", "place": r"\b[A-Z]+\b"}
            return [{"kind": kind, "text": found[0]} for kind, pattern in kinds.items() for found in re.finditer(pattern, text)]

    def parts_of(self, row):
        if "x" in row["text"]:
            raise UserError("no", "no")
        return [row["text"]]

    def answered(self, rows):
        return [(text, None) for (text,) in rows]


def test_slots_are_found_in_the_question(service):
    """The first of each kind; what the row gives comes before, and in a conversation what was found before what was said."""
    finding = Service(service._answering, Tagger())
    assert finding.reads == [*service.reads, *Tagger.reads]
    asked = ["card 0.99 in 5 or 6", "card 0.99", "x card 0.99 5"]
    first, second, third = finding.answers([Record({"text": text}, "") for text in asked])
    assert first["answer"].startswith("Cards come in 5 days") and not first["missing_slots"]
    assert second["missing_slots"] == third["missing_slots"] == ["days"]
    assert ask(finding, "card 0.99 in 5", slots={"days": "7"})["answer"].startswith("Cards come in 7 days")
    assert ask(finding, "card 0.99", conversation="a")["missing_slots"] == ["days"]
    assert "in 12 days" in ask(finding, "well, 12 of them", conversation="a")["answer"]
    service._templates["card"] = finding._templates["card"] = "In {days} days at {place}."
    assert ask(finding, "card 0.99 at ROME", conversation="b")["missing_slots"] == ["days"]
    assert ask(finding, "card 0.6 in OSLO", conversation="b")["missing_slots"] == ["days"], "another kind was found, so it is asked again"
    assert ask(finding, "card 0.6 then 5", conversation="b")["answer"] == "In 5 days at ROME."
    assert ask(finding, "card 0.99", conversation="c", slots={"place": "Bonn"})["missing_slots"] == ["days"]
    assert ask(finding, "card 0.6 then 5 at OSLO", conversation="c")["answer"] == "In 5 days at Bonn."
    assert ask(service, "card 0.99 in 5")["missing_slots"] == ["days", "place"]
    line = ask(finding, "card 0.99 for 4111 1111 1111 1111", conversation="d")
    assert line["missing_slots"] == ["days", "place"] and "4111" not in json.dumps([line, finding.state()])


def test_a_page_that_has_all_words_of_a_question_says_less_than_an_intent(fake, service, tmp_path):
    """Nor does it end a conversation that waits for a slot."""
    page = {"id": 9, "answer": "About card and loan: banks lend for 5 days, or longer."}
    (tmp_path / "passages.jsonl").write_text(json.dumps(page) + "\n")
    paged = Service(fake(service._options, LABELS, HELD))
    assert paged._passages.scores(["card", "5 days"]).min() >= 0.35
    assert ask(paged, "card", conversation="a")["missing_slots"] == ["days"]
    assert ask(paged, "card 0.6 5 days", conversation="a")["answer"].startswith("Cards come in card 0.6 5 days")
    assert ask(paged, "other banks lend for 5 days or longer")["route"] == "retrieved"


def test_passages_that_say_different_things_are_both_quoted(service):
    found = ask(service, "other where is the next nearest office")
    assert {citation["id"] for citation in found["citations"]} == {1, 2}
    for citation in found["citations"]:
        assert found["answer"].count(citation["quote"]) == 1


@given(st.text(max_size=60))
def test_scores_of_any_text_are_shares(text):
    passages = Passages([Passage(row["id"], row["question"], row["answer"], "") for row in PASSAGES])
    (scores,) = passages.scores([text])
    assert scores.shape == (3,) and (scores >= 0).all() and (scores <= 1).all()


def letters(texts):
    """A text as how often it has each letter."""
    counts = np.array([[text.lower().count(letter) for letter in "abcdefghijklmnopqrstuvwxyz"] for text in texts], float)
    return counts / np.maximum(np.linalg.norm(counts, axis=1, keepdims=True), 1e-9)


def test_a_passage_without_a_question_is_found_by_its_nearest_sentence():
    """By definition, sentence by sentence; what stands beside it changes no score of a passage with a question."""
    text = "The moon is far. Rye bread needs water and salt! Wait."
    asked = ["salt water in rye", "where is the office", ""]
    one, other = Passage(1, "Where is the office?", "At the station.", ""), Passage(2, "", text, "")
    found = Passages([one, other], letters).scores(asked)
    words = Passages([one, other]).scores(asked)
    near = (letters(asked) @ letters(["The moon is far.", "Rye bread needs water and salt!", "Wait."]).T).max(1)
    np.testing.assert_allclose(found[:, 1], (near + words[:, 1]) / 2)
    whole = letters(asked) @ letters(["Where is the office? At the station."])[0]
    np.testing.assert_allclose(found[:, 0], (letters(asked) @ letters([one.question])[0] + whole + words[:, 0] / 2) / 2.5)
    assert found[0].argmax() == 1 and found[1].argmax() == 0 and not found[2].any()
    assert Passages([one, other], letters).scores([]).shape == (0, 2)


def test_numbers_of_persons_are_masked_wherever_they_are_written(service):
    number = "4111 1111 1111 1111"
    for line in (
        ask(service, f"other {number}"),
        ask(service, f"card {number}"),
        ask(service, "card 0.99", slots={"days": number}),
        ask(service, "card 0.99", conversation=number),
        ask(service, f"other {number}", conversation=number),
    ):
        assert number not in json.dumps(line)
    service._templates["card"] = "In {days} at {place}."
    ask(service, "card 0.99", conversation=number, slots={"place": number})
    assert number not in json.dumps(service.state()) and service.state()["waiting"]


def test_rows_that_are_wrong_have_their_error_and_stop_nothing(service):
    rows = [
        Record(row, f"line {n}") for n, row in enumerate(({"text": ""}, {}, {"text": "card", "slots": 5}, {"text": 5}, {"text": "loan"}))
    ]
    lines = service.answers(rows)
    assert ["error" in line for line in lines] == [True, True, True, False, False] and lines[4]["intent"] == "loan"


def test_labelled_rows_are_counted(service):
    rows = [
        ("card 0.99", "card"),
        ("card 0.99", "loan"),
        ("loan 0.99", "loan"),
        ("card 0.6", "card"),
        ("other 0.99", "other"),
        ("loan", "other"),
    ]
    service.answers([Record({"text": text, "intent": label}, "") for text, label in rows])
    found = service.summary()
    assert found["accuracy"] == 3 / 4 and found["answered"] == 3 / 4 and found["precision"] == 2 / 4 and found["others_answered"] == 1 / 2
    assert sum(found[route] for route in ("template", "retrieved", "unsure", "human")) == 6


def test_files_of_answers_are_checked(tmp_path):
    path = tmp_path / "a.jsonl"
    for rows, what in (
        ([TEMPLATES[0]] * 2, "a second answer"),
        ([{"intent": "rent", "answer": "x"}], "no intent"),
        ([{"intent": "card"}], "answer"),
    ):
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        with pytest.raises(UserError, match=what):
            read_templates(str(path), LABELS)
    path.write_text("".join(json.dumps(row) + "\n" for row in [PASSAGES[0]] * 2))
    with pytest.raises(UserError, match="a second passage"):
        read_passages(str(path))
    path.write_text(json.dumps({"id": 4, "answer": "A text."}) + "\n")
    assert read_passages(str(path)) == [Passage(4, "", "A text.", "")]
    path.write_text(json.dumps({"intent": "card", "answer": "in {delivery-days} days"}) + "\n")
    with pytest.raises(UserError, match="brace"):
        read_templates(str(path), LABELS)
    for wrong in ({"human": "Ask {name}."}, {"ask": "{"}, {"ask": "{}"}, {"ask": "{slot.x}"}, {"unsure": "{first!r}"}, {"ask": "{other}"}):
        with pytest.raises(ValueError, match="nothing fills"):
            CustomerService(**wrong)
    assert not SLOT.findall(CustomerService().human)


def test_its_columns_are_what_it_reads(service):
    check_columns(service, {"text": "card"}, dataset=service._answering.dataset)
