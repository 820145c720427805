"""Which turns follow, which are planted, and what is said of dialogues."""

import json

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from data.errors import UserError
from data.records.record import Record
from tests.train.apps.columns import check_columns
from train.apps.dialogue.coherence import CONTRADICTS, ELSEWHERE, FOLLOWS, LABELS, Coherence, Judge, Turn, load_judge, read_before, turns_of
from train.apps.dialogue.planted import KINDS, contradicted, plant_one
from train.experiment import Experiment
from train.loop.progress import cost
from train.tasks.sequence import Conversations

WORDS = "I am not at home on Monday . it was five o'clock and 12 people did n ' t like the best ? yes".split(" ")


@given(st.lists(st.sampled_from(WORDS), max_size=10).map(" ".join), st.sampled_from([*KINDS]), st.integers(0, 99))
def test_a_changed_text_differs_and_by_its_kind_alone(text, kind, seed):
    changed = contradicted(text, kind, np.random.default_rng(seed))
    assert changed == contradicted(text, kind, np.random.default_rng(seed))
    has = {"number": {"five", "12"}, "date": {"Monday"}, "opposite": {"best", "yes"}, "negation": {"am", "was", "did"}}
    if changed is None:
        assert "?" in text or not has[kind] & {*text.split()[:-1]}
    else:
        assert changed != text
        if kind == "negation":
            assert abs(len(changed) - len(text)) <= len(" n ' t")
        else:  # one word for another
            assert sum(old != new for old, new in zip(text.split(), changed.split(), strict=True)) == 1


@given(st.lists(st.lists(st.sampled_from(WORDS), max_size=6).map(" ".join), max_size=5), st.integers(0, 99))
def test_what_is_planted_is_one_of_the_texts_changed(texts, seed):
    found = plant_one(texts, [*KINDS], np.random.default_rng(seed))
    if found is None:
        assert not any(contradicted(text, kind, np.random.default_rng(0)) for text in texts for kind in KINDS)
    else:
        assert found[1] != texts[found[0]] and abs(len(found[1].split()) - len(texts[found[0]].split())) <= 3


def test_rare_kinds_are_planted_as_often_as_common_ones():
    texts = ["It is so."] * 9 + ["We go on Monday."]
    days = sum("We go" in plant_one(texts, ["date", "negation"], np.random.default_rng(seed))[1] for seed in range(200))
    assert 70 < days < 130  # 18 of 200 were each text as likely as another


@pytest.mark.parametrize(
    ("text", "kind", "changed"),
    [
        ("I am at home.", "negation", "I am not at home."),
        ("I'm here. It is not so.", "negation", "I'm here. It is so."),
        ("I have n ' t any.", "negation", "I have any."),
        ("I don't know.", "negation", "I do know."),
        ("I can't go.", "negation", None),
        ("Is it so?", "negation", None),
        ("Do you leave on Monday?", "date", None),
        ("Do you leave on Monday?", "opposite", None),
        ("Stay open.", "opposite", "Stay closed."),
        ("I may go now.", "date", None),
        ("In May.", "opposite", None),
        *(("Hello.", kind, None) for kind in KINDS),
    ],
)
def test_what_each_kind_changes(text, kind, changed):
    assert contradicted(text, kind, np.random.default_rng(0)) == changed


def test_a_number_or_day_becomes_another_of_its_kind():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        assert int(contradicted("It costs 12.", "number", rng).split()[-1][:-1]) != 12
        assert contradicted("On Monday.", "date", rng) not in ("On Monday.", "On May.", "On evening.")


def test_turns_are_read_in_each_form():
    as_texts = turns_of(Record({"turns": ["Hi.", "Hello: you.", "Bye."]}, "row"), "turns")
    assert as_texts == [Turn("0", "Hi."), Turn("Hello", "you."), Turn("0", "Bye.")]
    assert turns_of(Record({"turns": "Ann: Hi.\n\nBob: Bye."}, "row"), "turns") == [Turn("Ann", "Hi."), Turn("Bob", "Bye.")]
    messages = [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": " Bye. "}]
    assert turns_of(Record({"turns": messages}, "row"), "turns") == [Turn("user", "Hi."), Turn("assistant", "Bye.")]
    plain = ["10:30 is fine", "https://x.org ok", "#Person1#: yes", "so it is: no"]
    assert [turn.speaker for turn in turns_of(Record({"turns": plain}, "row"), "turns")] == ["0", "1", "#Person1#", "1"]


@pytest.mark.parametrize(
    "row",
    [
        {},
        {"turns": []},
        {"turns": ["one"]},
        {"turns": [1, 2]},
        {"turns": ["a", {"role": "x"}]},
        {"turns": "a"},
        {"turns": 5},
        {"turns": True},
    ]
    + [{"turns": {"a": 1, "b": 2}}, {"turns": ["a", "b\ud800"]}, {"turns": ["a"] * 1001}],
)
def test_what_is_no_dialogue_is_an_error(row):
    with pytest.raises(UserError, match="row"):
        turns_of(Record(row, "row"), "turns")


def test_the_newest_turn_is_read_first_and_by_whom_it_was_said():
    turns = [Turn("A", "one"), Turn("B", "two"), Turn("A", "three")]
    assert read_before(turns, "A") == "I: three you: two I: one" and read_before(turns[:1], "B") == "you: one"


@pytest.fixture
def dialogues(tmp_path):
    """A file of three, in which nothing is said twice."""
    rows = [{"turns": [f"{name}: {place} We meet at {number} on Monday." for place in range(12)]} for number, name in enumerate("ABC", 2)]
    path = tmp_path / "dialogues.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path, rows


def test_examples_are_what_their_labels_say(fake, dialogues):
    path, rows = dialogues
    dataset = fake(Coherence(files=(str(path),)), LABELS, []).dataset
    source = type("File", (), {"path": str(path), "left_out": {}})()
    examples = dataset.read(source)
    assert dataset.read(source) == examples  # drawn by what is said, not by when
    said = [[turn.partition(": ")[2] for turn in row["turns"]] for row in rows]
    labels = {name: [one for one in examples if one.label == name] for name in LABELS}
    assert all(labels.values()) and len(labels[ELSEWHERE]) == 33
    for one in labels[ELSEWHERE]:  # not what was said there, nor just before
        assert not one.fields["text"].partition(": ")[2].startswith(one.fields["pair"])
        assert (one.fields["text"], one.fields["pair"]) not in [(other.fields["text"], other.fields["pair"]) for other in labels[FOLLOWS]]
    assert len(labels[FOLLOWS]) == 33 + len(labels[CONTRADICTS])
    for number, one in enumerate(examples):  # each contradiction stands behind what it contradicts, said again
        if one.label == CONTRADICTS:
            again = examples[number - 1]
            assert again.label == FOLLOWS and again.fields["text"] == one.fields["text"]
            assert sum(a != b for a, b in zip(again.fields["pair"].split(), one.fields["pair"].split(), strict=False)) > 0
    for one in examples:
        own = said[int(one.where.rpartition(" ")[2]) - 1]
        turn = one.fields["pair"]
        if one.label == FOLLOWS:
            assert turn in own
        elif one.label == CONTRADICTS:
            assert turn not in own
        else:
            assert any(turn in others for others in said)


def test_a_dialogue_is_learned_from_or_kept_as_a_whole(fake, dialogues):
    path, _ = dialogues
    dataset = fake(Coherence(files=(str(path),), validation=0.34), LABELS, []).dataset
    source = type("File", (), {"path": str(path), "left_out": {}})()
    source.examples = dataset.read(source)
    before = [one.fields for one in dataset.examples([source], "validation")]
    learned, kept = ({one.where for one in dataset.examples([source], split)} for split in ("train", "validation"))
    assert len(learned) == 2 and len(kept) == 1 and not learned & kept
    said = {one.fields["pair"] for one in dataset.examples([source], "train") if one.label == ELSEWHERE}
    (held,) = {tuple(turn.text for turn in one.parts[0]) for one in dataset.examples([source], "validation")}
    assert not said & {*held}  # nor is a turn of theirs, as one that was said elsewhere
    moved = path.rename(path.with_name("moved.jsonl"))  # what is kept does not depend on where the file is
    source.path = str(moved)
    source.examples = dataset.read(source)
    again = [one.fields for one in dataset.examples([source], "validation")]
    assert again == before


class Answers:
    """As Answering: a turn follows with the probability that stands in it, and else contradicts."""

    reads = ("run", 1, False)

    def __init__(self, dataset):
        self.dataset = dataset

    def sure(self, text):
        return float(text.split()[-1])

    def __call__(self, examples):
        sure = [self.sure(one.fields["pair"]) for one in examples]
        return [np.array([1 - value, 0.0, value], np.float32) for value in sure]


def test_lines_summary_and_state(fake):
    def judge():
        return Judge(Answers(fake(Coherence(), LABELS, []).dataset))

    made, rows = judge(), [["hello", "so 0.9", "no 0.2"], ["a", "b 0.7"]]
    lines = made.answers([Record({"turns": turns, "id": n}, "row") for n, turns in enumerate(rows)] + [Record({"turns": ["x"]}, "row 3")])
    assert lines[0]["coherence"] == pytest.approx(0.55) and lines[0]["contradictions"] == [2] and lines[1]["id"] == 1
    assert "fewer than two" in lines[2]["error"]
    assert made.summary() == {"dialogues": 2, "coherence": pytest.approx(0.625), "contradicting": pytest.approx(1 / 3)}
    other = judge()
    other.restore(json.loads(json.dumps(made.state())))
    assert other.summary() == made.summary() and other.sections()[0].rows[0] == ["0.200", "so 0.9", "no 0.2"]
    assert judge().summary() == {"dialogues": 0}
    before = made.state()
    for _ in range(3):  # as behind the API: nothing of a request is remembered
        kept = made.state()
        made.answers([Record({"turns": rows[0]}, "row")])
        made.restore(kept)
    assert made.state() == before and len(made.state()["worst"]) == 3


def test_the_page_is_bounded(fake):
    made = Judge(Answers(fake(Coherence(), LABELS, []).dataset))
    made.answers([Record({"turns": ["a", *[f"b {number / 100}" for number in range(90)]]}, "row")])
    assert [row[0] for row in made.sections()[0].rows] == [f"{number / 100:.3f}" for number in range(30)]


def test_nearness_is_to_the_two_turns_before(fake):
    made = Judge(Answers(fake(Coherence(), LABELS, []).dataset))
    told = []

    def encoder(texts):
        told.extend(texts)
        return np.ones((len(texts), 1), np.float32)

    made._encoder = encoder
    (line,) = made.answers([Record({"turns": ["a", "b 0.9", "c 0.9", "d 0.9"]}, "row")])
    assert told[3:] == ["a", "a b 0.9", "b 0.9 c 0.9"] and line["nearness"] == 1.0


def test_what_was_said_long_before_is_not_read(fake):
    turns = [Turn(str(place % 2), f"t{place}") for place in range(12)]
    for count in (1, 6, 20):
        text = fake(Coherence(before=count), LABELS, []).dataset.pair(turns, 11, turns[11], "row").fields["text"]
        assert text.split()[1::2] == [f"t{place}" for place in range(10, max(10 - count, -1), -1)]


@pytest.mark.parametrize("options", [{"planted": ()}, {"planted": ("other",)}, {"before": 0}, {"several": True}, {"label_noise": 0.1}])
def test_options(options):
    with pytest.raises(ValueError, match=r"data"):
        Coherence(**options)


def test_replies_of_a_model_are_judged_in_their_conversation(fake, monkeypatch):
    """The measures by which checkpoints can be chosen, and training ended."""
    judge = Judge(Answers(fake(Coherence(), LABELS, []).dataset))
    monkeypatch.setattr("train.apps.dialogue.coherence.load_judge", lambda path: judge)
    dataset = fake(Conversations(judge="runs/judge"), (), []).dataset
    messages = [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "so 0.9"}]
    examples = [dataset.example(Record({"messages": messages}, "row"))] * 2
    found = dataset.score(examples, ["no 0.2", "yes 0.9"])
    assert found.values["coherence"] == pytest.approx(0.55) and found.values["contradicting"] == 0.5
    assert set(found.measures) >= {"coherence", "contradicting"} and cost("contradicting", 0.1) < cost("contradicting", 0.2)


def test_a_judge_is_a_run_of_its_kind(tmp_path, monkeypatch):
    run = type("Run", (), {"experiment": Experiment(data=Conversations())})()
    monkeypatch.setattr("train.runs.directory.open_run", lambda path: run)
    with pytest.raises(UserError, match="no run that judges"):
        load_judge("runs/other")


def test_its_columns_are_what_it_reads(fake):
    made = Judge(fake(Coherence(), LABELS, []))
    check_columns(made, {"turns": ["a", "b"]}, dataset=made._answering.dataset)
