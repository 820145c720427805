"""What a student knows, what comes next, and that no prediction sees its answer."""

import dataclasses
import json
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from data.errors import UserError
from data.records.record import Record
from model import ModelConfig
from tests.train.apps.columns import check_columns
from train.apps.education.practice import Knowing, Practice, Practising, read_needs
from train.experiment import Experiment
from train.kinds import realise
from train.objectives.tasks.tracing import NextAnswer
from train.sources.dataset import dataset_of
from train.tasks.metrics.binary import auc
from train.tasks.tracing import AnswerRows, Tracing, TracingDataset, read_sequences, sequence_of

SKILLS = ("", "adding", "counting", "dividing")
LENGTH = 8


def tracing(**options) -> TracingDataset:
    model = ModelConfig(context_length=LENGTH, num_layers=1, embed_dim=16, num_heads=2, mlp_dim=16, positions="rotary", vocab_size=8)
    return dataset_of(Experiment(model=model, data=Practice(**options), objective=NextAnswer(skills=SKILLS), batch_size=2))


def write(path, rows) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture(scope="module")
def outputs():
    dataset = tracing()
    bound = realise(dataset.experiment.objective, dataset.experiment, 1)
    params = jax.tree.map(lambda x: getattr(x, "value", x), bound.start(jax.random.key(0)), is_leaf=lambda x: hasattr(x, "value"))
    params = jax.tree.map(lambda x: x + 0.3 * jax.random.normal(jax.random.key(x.size), x.shape), params)  # no zeros that hide a leak
    compiled = jax.jit(bound.outputs)
    return lambda batch: {name: np.asarray(value) for name, value in compiled(params, batch).items()}


def batch_of(answers, exercise=False, **options):
    dataset = tracing(**options)
    one = sequence_of("s", [(skill, right, place if exercise else None) for skill, right, place in answers])
    return AnswerRows(dataset, [one], training=False).batch(0, 2)


def test_a_prediction_sees_no_answer_from_its_own_on(outputs):
    answers = [("adding", True, 0), ("counting", False, 1), ("adding", False, 2), ("dividing", True, 3), ("adding", True, 4)]
    whole = outputs(batch_of(answers))["probability"][0]
    for place in range(5):
        other = outputs(batch_of([(skill, right != (n >= place), e) for n, (skill, right, e) in enumerate(answers)]))["probability"][0]
        np.testing.assert_allclose(other[: place + 1], whole[: place + 1], rtol=1e-5)
        assert place == 4 or abs(other[place + 1] - whole[place + 1]) > 1e-6  # it does see the answers before


def test_copies_of_an_answer_under_other_skills_are_not_seen(outputs):
    """One exercise of three skills: none of its predictions changes with the answer, whichever copy stands first."""
    answers = [("adding", True, 0), ("counting", False, 1), ("adding", False, 1), ("dividing", False, 1), ("adding", True, 2)]
    flipped = [(skill, right != (exercise == 1), exercise) for skill, right, exercise in answers]
    own, other = (outputs(batch_of(some, exercise=True))["probability"][0] for some in (answers, flipped))
    np.testing.assert_allclose(own[:4], other[:4], rtol=1e-5)
    seen, other = (outputs(batch_of(some))["probability"][0] for some in (answers, flipped))
    assert abs(seen[2] - other[2]) > 1e-6  # without exercises nobody can tell


def test_an_application_expects_what_an_evaluation_predicts(outputs):
    """Of each skill, after a history: what the next answer would be predicted by, were it about that skill."""
    knowing = object.__new__(Knowing)
    knowing.dataset, knowing._params = tracing(), None
    knowing._evaluator = SimpleNamespace(outputs=lambda params, batch, count, collect: collect(outputs(batch(0, 2))))
    for size in (0, 2, LENGTH - 1):
        history = [(SKILLS[1 + place % 3], place % 2 == 0) for place in range(size)]
        (expected,) = knowing.expected([history])
        for place, skill in enumerate(SKILLS):
            rows = batch_of([*((name, right, None) for name, right in history), (skill, True, None)])
            np.testing.assert_allclose(outputs(rows)["probability"][0, size], expected[place], rtol=1e-4)


@pytest.mark.parametrize("size", [1, LENGTH - 1, LENGTH, LENGTH + 1, 3 * LENGTH + 3])
def test_an_evaluation_predicts_every_answer_once(size):
    dataset = tracing()
    one = sequence_of("s", [("adding", place % 3 == 0, None) for place in range(size)])
    rows = AnswerRows(dataset, [one, one], training=False)
    batch = rows.batch(0, rows.rows_per_epoch + 1)
    assert batch.weights.sum() == 2 * size
    assert batch.correct[batch.weights > 0].sum() == 2 * sum(place % 3 == 0 for place in range(size))
    assert (batch.reads <= np.arange(LENGTH)).all()


def test_rows_of_training_are_a_function_of_their_number():
    dataset = tracing(any_order=True)
    one = sequence_of("s", [(SKILLS[1 + place % 3], place % 2 == 0, None) for place in range(20)])
    rows = AnswerRows(dataset, [one] * 3, training=True)
    whole, part = rows.batch(0, 6), rows.batch(4, 2)
    for name in ("tokens", "skills", "correct", "reads", "weights"):
        np.testing.assert_array_equal(getattr(whole, name)[4:], getattr(part, name))
    assert len({tuple(row) for row in whole.skills.tolist()}) > 1  # orders differ


def test_files_of_answers_are_read_alike_in_rows_and_lists(tmp_path):
    lists = [{"student": "a", "skill": ["x", "y"], "correct": [1, 0]}, {"student": "b", "skill": ["x"], "correct": [True]}]
    each = [
        {"student": "a", "skill": "x", "correct": "1"},
        {"student": "b", "skill": "x", "correct": "true"},
        {"student": "a", "skill": "y", "correct": 0},
    ]
    one, other = (read_sequences(write(tmp_path / f"{n}.jsonl", rows), Tracing()) for n, rows in enumerate((lists, each)))
    assert [(a.student, a.skills, a.correct_N.tolist()) for a in one] == [(a.student, a.skills, a.correct_N.tolist()) for a in other]
    apart = read_sequences(str(tmp_path / "0.jsonl"), Tracing(apart=True))
    assert [(a.student, a.skills) for a in apart] == [("a", ["x"]), ("a", ["y"]), ("b", ["x"])]


def test_students_are_kept_whole_from_training(tmp_path):
    rows = [{"student": str(n), "skill": "x", "correct": n % 2} for n in range(60)] * 2
    dataset = tracing(files=(write(tmp_path / "a.jsonl", rows),), validation=0.3)
    train, held = ({one.student for one in dataset.sequences(split)} for split in ("train", "validation"))
    assert train and held and not train & held and len(train | held) == 60


def test_answers_that_say_nothing_name_their_line(tmp_path):
    for row in (
        {"student": "a", "skill": "x", "correct": "maybe"},
        {"student": "a", "skill": ["x"], "correct": [1, 0]},
        {"student": "a", "skill": ["x"], "correct": 1},
        {"student": "", "skill": "x", "correct": 1},
        {"skill": "x", "correct": 1},
        {"student": "a", "correct": 1},
    ):
        path = write(tmp_path / "a.jsonl", [{"student": "a", "skill": "x", "correct": 1}, row])
        read_sequences.cache_clear()
        with pytest.raises(UserError, match="line 2"):
            read_sequences(path, Tracing())
        read_sequences.cache_clear()
        assert len(read_sequences(path, Tracing(leave_out=True))) == 1


def test_auc_is_the_share_of_pairs_in_the_right_order():
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(0)
    true, given = rng.random(200) < 0.3, np.round(rng.random(200), 1)  # with ties
    assert auc(true, given) == pytest.approx(roc_auc_score(true, given))
    assert np.isnan(auc([True], [0.5]))


# ------------------------------------------------------------------------------------------------------------------ what comes next


@dataclasses.dataclass
class FakeKnowing:
    """As of Knowing: 0.5 of each skill, 0.1 more for each right answer to it and less for each wrong one."""

    dataset: TracingDataset
    reads = ("identity", 1, False)

    def expected(self, histories, mean=False):
        found = np.full((len(histories), len(SKILLS)), 0.5)
        for row, history in zip(found, histories, strict=True):
            for skill, right in history:
                row[self.dataset.places.get(skill, 0)] += 0.1 if right else -0.1
        found = np.clip(found, 0, 1)
        return found.mean(1) if mean else found

    def held_out_answers(self):
        return np.array([0.2, 0.8, 0.9]), np.array([0.0, 1.0, 1.0])

    def learned(self, what, of=None):
        return json.loads(json.dumps(what()))


def practising(tmp_path, **options) -> Practising:
    texts = write(
        tmp_path / "texts.jsonl", [{"skill": "dividing", "text": "Share a cake"}, {"skill": "maps", "text": "Read a map of hills"}]
    )
    needs = write(tmp_path / "needs.jsonl", [{"skill": "dividing", "needs": ["adding"]}])
    return Practising(FakeKnowing(tracing(texts=texts, prerequisites=needs, **options)))


def ask(some: Practising, **row):
    (line,) = some.answers([Record(row, "line 1")])
    return line


def test_the_next_skill_is_near_the_target_and_has_what_it_needs(tmp_path):
    some = practising(tmp_path)
    line = ask(some, skill=["adding", "counting", "counting"], correct=[1, 1, 1])
    assert line["mastery"] == {"adding": 0.6, "counting": 0.7} and line["next"][0]["skill"] == "counting"
    assert "dividing" not in [one["skill"] for one in line["next"]] and line["waiting"] == [{"skill": "dividing", "needs": ["adding"]}]
    line = ask(some, skill=["adding"] * 3 + ["dividing"] * 2, correct=[1] * 5)
    first = line["next"][0]
    assert first["skill"] == "dividing" and "2 of the last 2 right" in first["reason"] and "adding" in first["reason"]
    assert ask(some, skill=["adding"], correct=[1], exclude=["adding"])["next"][0]["skill"] != "adding"


def test_a_new_student_is_advised_by_texts(tmp_path):
    line = ask(practising(tmp_path), interest="a map of hills")
    assert line["new"] and line["next"][0]["skill"] == "maps" and "hills" in line["next"][0]["reason"]
    assert "nobody" in line["next"][0]["reason"] and line["mastery"] == {}


def test_an_interest_that_goes_with_nothing_changes_nothing(tmp_path):
    """Else all skills would be worth nothing alike, and come by the alphabet."""
    some = practising(tmp_path)
    without, line = ask(some), ask(some, interest="quantum")
    assert line["next"] == without["next"] and ask(some, interest="hills")["next"] != without["next"]


def test_numbers_of_a_table_are_read(tmp_path):
    some = practising(tmp_path)
    assert ask(some, top="2") == ask(some, top=2) and ask(some, top="") == ask(some)


def test_rows_that_are_wrong_stop_nothing(tmp_path):
    rows = [
        {"skill": ["a"], "correct": [1, 1]},
        {"top": 0},
        {"interest": 5},
        {"exclude": "a"},
        {"skill": "a"},
        {"skill": "a", "correct": 1},
    ]
    lines = practising(tmp_path).answers([Record(row, "line 1") for row in rows])
    assert ["error" in line for line in lines] == [True] * 5 + [False]


def test_lines_do_not_depend_on_their_neighbours_and_counts_go_on(tmp_path):
    some = practising(tmp_path)
    rows = [Record({"skill": ["adding"] * n, "correct": [n % 2] * n}, "") for n in (1, 2, 3)]
    together = some.answers(rows)
    again = practising(tmp_path)
    assert [again.answers([row])[0] for row in rows] == together
    more = practising(tmp_path)
    more.restore(json.loads(json.dumps(some.state())))
    assert more.summary() == some.summary() and more.summary()["students"] == 3


def test_a_long_history_is_cut_before_it_is_copied(tmp_path):
    """Of a thousand answers no more than the model reads, and with the same result as if all were given."""
    given = practising(tmp_path)
    asked = []
    expected = given._knowing.expected
    given._knowing.expected = lambda some, **how: asked.append(list(map(len, some))) or expected([one[-LENGTH:] for one in some], **how)
    line = ask(given, skill=["counting", *["adding"] * 999], correct=[1] * 1000, top=2)
    assert max(asked[1]) == LENGTH and asked[0] == [1000] and {*line["mastery"]} == {"adding", "counting"}


def test_a_context_of_one_has_no_room_for_a_history(tmp_path):
    path = write(tmp_path / "a.jsonl", [{"student": str(n), "skill": "x", "correct": n % 2} for n in range(9)])
    dataset = tracing(files=(path,))
    dataset.check([])
    model = dataclasses.replace(dataset.experiment.model, context_length=1)
    with pytest.raises(UserError, match="context_length is 1"):
        dataset_of(dataclasses.replace(dataset.experiment, model=model)).check([])


def test_what_a_state_holds_does_not_change_later(tmp_path):
    some = practising(tmp_path)
    ask(some, skill=["adding"], correct=[1])
    kept = some.state()
    before = json.dumps(kept)
    ask(some, skill=["adding"], correct=[1])
    assert json.dumps(kept) == before


def test_what_nobody_answered_is_never_taken_for_known(tmp_path):
    """`maps` has a text and no answers; the model's probability of unknown skills says nothing of it."""
    some = practising(tmp_path, mastered=0.4)
    assert "dividing" in [one["skill"] for one in ask(some)["next"]]
    some._needs = {"dividing": ("maps", "adding")}
    line = ask(some)
    assert line["waiting"] == [{"skill": "dividing", "needs": ["maps"]}] and "dividing" not in [one["skill"] for one in line["next"]]


def test_parts_of_other_skills_are_other_parts():
    """Each parameter has a name, and none that depends on the skills is taken over for as many others."""
    parts = []
    for skills in (SKILLS, ("", "adding", "counting", "singing")):
        experiment = dataclasses.replace(tracing().experiment, objective=NextAnswer(skills=skills))
        bound = realise(experiment.objective, experiment, 1)
        parts.append(bound.parts)
        there = {path[0] for path in bound.parts.values()}
        assert {*jax.eval_shape(bound.start, jax.random.key(0))} <= there
    shared = {parts[0][name][0] for name in parts[0].keys() & parts[1].keys()}
    assert "layers" in shared and not shared & {"embedding", "asked", "mixed", "number"}


def test_needs_in_a_circle_are_refused(tmp_path):
    path = write(tmp_path / "n.jsonl", [{"skill": "a", "needs": "b|c"}, {"skill": "b", "needs": ["a"]}, {"skill": "c", "needs": ""}])
    with pytest.raises(UserError, match="circle"):
        read_needs(path)


def test_options_that_contradict_one_another():
    with pytest.raises(ValueError, match="order"):
        Practice(any_order=True, exercise="problem")


def test_its_columns_are_what_it_reads(tmp_path):
    some = practising(tmp_path)
    check_columns(some, {"skill": ["adding"], "correct": [1]}, dataset=some._knowing.dataset)
    assert "prediction" in some.notice
