"""What a case is read as, what its answer rests on, and that sources are joined as well as can be."""

import base64
import dataclasses
import io
import json
import math
import os
import string
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from data.errors import UserError
from data.files import json_files
from data.records.record import Record
from data.tokenizer import character_tokenizer
from model.text_encoder_config import TextEncoderConfig
from tests.train.apps.columns import check_columns
from tests.train.tiny_runs import outcome, start, train, train_and_stop
from train.apps.answering import Answering
from train.apps.confidence import log_odds
from train.apps.medicine.cases import LARGEST, TURNED, Case, Scales, parse_value
from train.apps.medicine.diagnosis import NOTICE, Medical, read_knowledge, recall_threshold
from train.apps.medicine.medical_case import MedicalCase
from train.apps.medicine.simulated_cases import APART, LABELS, OF_ILL, SOURCES, VALUES, WORDS, best, best_of, simulate, write
from train.experiment import AdamW, Checkpoints, Evaluation, Experiment, Samples, Schedule
from train.explain.subject import subject_of
from train.objectives.tasks.options import Supervised
from train.runs.directory import open_run
from train.sources.dataset import dataset_of
from train.step.federated.options import Federated
from train.step.private.options import Private
from train.tasks.examples import Example

KNOWN = ("first: -6..6", "second: -6..6")


def experiment(folder, *, steps: int = 600, rate: float = 5e-3, **more) -> Experiment:
    """Of a tiny encoder from scratch, on the files that `write` made."""
    places = {"files": (str(folder / "train.jsonl"),), "validation_files": (str(folder / "test.jsonl"),)}
    data = {"label": "outcome", "values": KNOWN, "positive": LABELS[0], "leave_out": True, "length": 16} | places | more
    return Experiment(
        steps=steps,
        batch_size=64,
        model=TextEncoderConfig(
            context_length=16, num_layers=1, embed_dim=16, num_heads=2, init_std=0.3, pooler=False, prediction_head=False, token_types=0
        ),
        data=MedicalCase(tokenizer=str(folder / "tokenizer"), **data),
        objective=Supervised(head_dropout=0.0),
        optimizer=AdamW(learning_rate=rate, weight_decay=0.01),
        schedule=Schedule(20, "linear", final_fraction=0.0),
        evaluation=Evaluation(every=0),
        checkpoints=Checkpoints(every=0),
        samples=Samples(tokens=0),
    )


def answering(run) -> Answering:
    dataset = dataset_of(run.experiment)
    dataset.place = run.path
    return Answering(run, dataset)


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cases")
    write(str(folder), seed=3, learned=2000, tested=300)
    character_tokenizer(string.printable + "。").save(str(folder / "tokenizer"))
    return folder


@pytest.fixture(scope="module")
def run(cases, tmp_path_factory):
    made = start(tmp_path_factory.mktemp("medical") / "run", experiment(cases))
    train(made)
    return open_run(made.path)


@pytest.fixture(scope="module")
def shared(run):
    return answering(run)


@pytest.fixture
def medical(shared):
    return Medical(shared)


def ask(medical, **row):
    (line,) = medical.answers([Record(row, "line 1")])
    return line


def rewired(medical, **changed):
    """The same run with other options; what it learns is not kept."""
    given = answering(medical._answering.run)
    given._evaluator, given.learned = medical._answering._evaluator, lambda what, of=None: what()
    given.dataset.options = dataclasses.replace(given.dataset.options, **changed)
    return Medical(given)


def written(image: np.ndarray) -> str:
    content = io.BytesIO()
    Image.fromarray(image.astype(np.uint8)).save(content, "PNG")
    return "data:image/png;base64," + base64.b64encode(content.getvalue()).decode()


def seen_by(given, sources, rows) -> float:
    """The accuracy of answers to rows of which these sources are seen."""
    examples = [given.dataset.example(Record(row, "row")) for row in rows]
    answers = given([given.dataset.only(example, sources) for example in examples])
    return float(np.mean([given.dataset.label_names[int(one.argmax())] == row["outcome"] for one, row in zip(answers, rows, strict=True)]))


# ------------------------------------------------------------------------------------------------------------------ the simulator


@pytest.mark.parametrize("sources", [("text",), ("table", "image"), SOURCES])
def test_the_best_accuracy_is_that_of_the_true_odds(sources):
    """4,000 cases, of which three standard errors are 1.9 points."""
    rows, odds = simulate(4000, 7, missing=0.0)
    text = np.array([2 * row["text"].count("a") - WORDS for row in rows]) * math.log(OF_ILL / (1 - OF_ILL))
    table = APART * np.array([row["first"] + row["second"] for row in rows])
    of = {"text": text, "table": table, "image": odds - text - table}
    right = (sum(of[source] for source in sources) > 0) == np.array([row["outcome"] == LABELS[0] for row in rows])
    assert abs(right.mean() - best_of(sources)) < 0.02
    assert 0.5 < best(sources) < best_of(sources) <= best_of(SOURCES)


def test_best_with_nothing_missing_is_best_of_all():
    assert math.isclose(best(missing=0.0), best_of(SOURCES)) and math.isclose(best((), missing=0.0), 0.5)


def test_fusion_is_within_two_points_of_the_best(shared):
    rows, odds = simulate(3000, 101)
    truth = np.array([row["outcome"] == LABELS[0] for row in rows])
    assert seen_by(shared, SOURCES, rows) >= ((odds > 0) == truth).mean() - 0.02


def test_a_source_that_is_missing_costs_no_more_than_training_without_it(shared, cases, tmp_path):
    others = ("table", "image")
    without = start(tmp_path / "run", experiment(cases, sources=others))
    train(without)
    rows, _ = simulate(3000, 102, missing=0.0)
    assert seen_by(shared, others, rows) >= seen_by(answering(open_run(without.path)), others, rows) - 0.02


# ------------------------------------------------------------------------------------------------------------------ at work


def test_a_line_says_what_it_rests_on(medical):
    row = {name: value for name, value in simulate(1, 5, missing=0.0)[0][0].items() if name != "outcome"}
    line = ask(medical, id=7, **row)
    assert line["id"] == 7 and line["notice"] == NOTICE and line["missing"] == [] and line["audit"]["checkpoint"] == 600
    assert {*line["contributions"]} == {*SOURCES} and line["audit"]["sources"] == [*SOURCES]
    assert math.isclose(sum(one["probability"] for one in line["differential"]), 1, abs_tol=1e-3)
    given = medical._answering
    example = given.dataset.example(Record(row, "row"))
    alone = [tuple(one for one in SOURCES if one != source) for source in SOURCES]
    whole, *lost = given([example, *(given.dataset.only(example, sources) for sources in alone)])
    place = int(whole.argmax())
    assert {one["label"] for one in line["differential"]} == {*LABELS} and line["differential"][0]["label"] == LABELS[place]
    wanted = [(log_odds(whole[place]) - log_odds(without[place])) / medical._temperature for without in lost]
    np.testing.assert_allclose([line["contributions"][one] for one in SOURCES], wanted, rtol=1e-3, atol=1e-3)


def test_evidence_counts_for_its_side(medical):
    for_it, against = (ask(medical, text="a a a a a a a", first=value, second=value) for value in (1.0, -3.0))
    assert for_it["answer"] == "ill" and for_it["contributions"]["text"] > 0 and for_it["contributions"]["table"] > 0
    assert against["differential"][0]["label"] == "well" and against["contributions"]["text"] < 0


def test_sources_that_are_sure_and_differ_are_told(medical):
    assert ask(medical, text="a a a a a a a", first=-3, second=-3)["contradiction"] == {"text": "ill", "table": "well"}
    assert ask(medical, text="a a a a a a a", first=3, second=3)["contradiction"] is None
    assert ask(medical, text="a a a a a a a")["contradiction"] is None


@pytest.mark.parametrize("missing", SOURCES)
def test_any_source_may_be_missing(medical, missing):
    row = {"text": "a a b", "first": 1.0, "image": written(np.full((40, 50), 128))}
    line = ask(medical, **{name: value for name, value in row.items() if name != {"table": "first"}.get(missing, missing)})
    assert line["missing"] == [missing] and missing not in line["contributions"]


def test_bad_rows_are_errors_in_place(medical, tmp_path):
    (tmp_path / "rows.jsonl").write_text("")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing")
    rows = [
        {"text": "a"},
        {},
        {"text": "", "first": None},
        {"image": "broken.png"},
        {"image": "../secret.png"},
        {"image": "/etc/passwd"},
        {"image": 3},
        {"image": "data:image/png;base64,####"},
        {"text": ["a"]},
        {"first": 1},
    ]
    lines = medical.answers([Record(row, f"{tmp_path}/rows.jsonl: line {number}") for number, row in enumerate(rows, 1)])
    assert ["error" in line for line in lines] == [False] + [True] * 8 + [False]
    assert all("leads out of its folder" in lines[number]["error"] for number in (4, 5))


def image_of(cases, given: str, where: str, **options):
    return dataset_of(experiment(cases, **options)).example(Record({"text": "a", "image": given}, where)).parts.image


@pytest.fixture
def folder(tmp_path):
    """With images inside and outside of a folder that has a file of rows."""
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside/rows.jsonl").write_text("")
    for name in ("secret.png", "inside/mine.png"):
        Image.fromarray(np.full((8, 8), 200, np.uint8)).save(tmp_path / name)
    return tmp_path / "inside"


def test_a_request_reads_no_file_by_its_path(cases, folder, monkeypatch):
    """The server's working directory is no folder of images; one that the run names is."""
    monkeypatch.chdir(folder)
    with pytest.raises(UserError, match="of no file"):
        image_of(cases, "mine.png", "row 1")
    assert image_of(cases, written(np.full((8, 8), 200)), "row 1").mean() == 200
    assert image_of(cases, "mine.png", "row 1", images=str(folder)).mean() == 200
    assert image_of(cases, "mine.png", f"{folder}/rows.jsonl: line 1").mean() == 200


@pytest.mark.parametrize("given", ["link.png", "loop.png", "pipe.png", "large.png", ".", "a\0b", "x" * 5000])
def test_only_files_below_the_folder_are_read(cases, folder, given, monkeypatch):
    (folder / "link.png").symlink_to(folder.parent / "secret.png")
    (folder / "loop.png").symlink_to("loop.png")
    os.mkfifo(folder / "pipe.png")
    with open(folder / "large.png", "wb") as file:
        file.truncate((1 << 25) + 1)

    def never(path):
        raise AssertionError(f"{path} is opened, which may never end")

    monkeypatch.setattr("train.apps.medicine.cases.read_content", never)
    with pytest.raises(UserError, match="leads out|is no file|more than 32 MiB"):
        image_of(cases, given, f"{folder}/rows.jsonl: line 1")


def test_images_of_many_bytes_or_pixels_are_refused(cases, monkeypatch):
    wide = io.BytesIO()
    Image.new("1", (5000, 5000)).save(wide, "PNG")
    given = "data:image/png;base64," + base64.b64encode(wide.getvalue()).decode()
    with pytest.raises(UserError, match="row 1: image"):
        image_of(cases, given, "row 1")
    monkeypatch.setattr("train.apps.medicine.cases.MOST_BYTES", 30)
    with pytest.raises(UserError, match="more than"):
        image_of(cases, written(np.full((8, 8), 200)), "row 1")


def test_numbers_that_are_large_leave_scales_finite():
    values = (parse_value("x"),)
    cases = [Case((number,), None) for number in (1e308, -1e308, 1e308)]
    scales = Scales.measured(values, cases)
    assert np.isfinite(scales.flat()).all() and np.isfinite(scales.table(values, cases[0])).all()
    with pytest.raises(ValueError):
        parse_value(f"x: 0..{10 * LARGEST}")


@pytest.mark.parametrize("value", [-1, 101.3, "x", math.nan, 1e400, 10**400, [3], True, "-40"])
def test_values_that_cannot_be_believed_are_missing(cases, value):
    dataset = dataset_of(experiment(cases, values=("temperature: 30..44", "second")))
    example = dataset.example(Record({"temperature": value, "text": "a"}, "row"))
    assert example.parts.values[0] is None and len(example.parts.remarks) == 1
    assert ("taken for Fahrenheit it is 38.5 in Celsius" in example.parts.remarks[0]) == (value == 101.3)


def test_only_temperatures_are_taken_for_fahrenheit(cases):
    dataset = dataset_of(experiment(cases, values=("attempts: 30..44", "body_temp: 30..44")))
    remarks = dataset.example(Record({"attempts": 101.3, "body_temp": 101.3, "text": "a"}, "row")).parts.remarks
    assert ["Fahrenheit" in one for one in remarks] == [False, True]


def test_another_column_named_text_is_not_the_text(cases):
    dataset = dataset_of(experiment(cases, text="notes"))
    example = dataset.example(Record({"notes": "b b", "text": "a a", "ward": "two"}, "row"))
    assert example.fields == {"text": "b b", "ward": "two"}


def test_numbers_without_a_range_need_standardising(cases):
    dataset = dataset_of(experiment(cases, values=("first", "second: -6..6"), standardise=False, positive=""))
    with pytest.raises(UserError, match="'first' has no range"):
        dataset.check(dataset.open())


def test_a_remark_names_what_was_not_believed(medical):
    line = ask(medical, text="a a", first=400.0, second=0.5)
    assert line["remarks"] == ["first is 400, which is not between -6 and 6"] and line["missing"] == ["image"]
    assert line["differential"] == ask(medical, text="a a", second=0.5)["differential"]


def test_an_image_of_something_else_is_told(medical):
    usual = {"image": simulate(9, 5, missing=0.0)[0][0]["image"]}
    slope = {"image": written(np.tile(np.arange(32) * 8, (32, 1)))}
    assert ask(medical, **usual)["remarks"] == [] and "unlike" in ask(medical, **slope)["remarks"][0]


def test_an_image_that_was_turned_is_told_where_all_stand_one_way():
    """Bright above and to the left, as in no other way; of images that are alike every way nothing can be told."""
    rng, slopes = np.random.default_rng(0), np.add.outer(np.linspace(150, 20, 32), np.linspace(70, 0, 32))
    images = [np.clip(slopes + rng.normal(0, 12, slopes.shape), 0, 255).astype(np.uint8) for _ in range(40)]
    scales = Scales.measured((), [Case((), image) for image in images])
    assert [scales.turned(image) for image in images] == [""] * 40
    done = {"inverted": lambda image: 255 - image, "upside down": np.flipud}
    done |= {"turned to its left": np.rot90, "turned to its right": lambda image: np.rot90(image, -1)}  # rot90: against the clock
    for name, do in done.items():
        assert all(scales.turned(do(image), [name]) == name for image in images)
        assert {scales.turned(do(image)) for image in images} <= {name, "inverted"}
        np.testing.assert_array_equal(TURNED[name](do(images[0])), images[0])
    alike = [np.clip(rng.normal(128, 30, (32, 32)), 0, 255).astype(np.uint8) for _ in range(40)]
    found = Counter(Scales.measured((), [Case((), image) for image in alike]).turned(image) for image in alike)
    assert 40 - found[""] > 5


def test_a_report_quotes_the_record_word_for_word(medical):
    text = "A man of 64 came with fever.  X-ray: opacities on the left!\nHe was admitted and recovered。 No more"
    line = ask(medical, text=text, first=1)
    quotes = [quote for section in line["report"] for quote in section.get("quotes", ())]
    assert len(quotes) == 4 and all(line["text"][one["start"] : one["end"]] == one["quote"] for one in quotes)
    sections = {section["section"]: section for section in line["report"]}
    assert (
        sections["Findings"]["quotes"][0]["quote"].startswith("X-ray") and "second" in sections["Values"]["text"].partition("Not known")[2]
    )


def test_treatment_comes_from_the_file_alone(medical, tmp_path):
    assert ask(medical, text="a a a a a a a", first=2.0)["treatment"] == []
    lines = [{"id": "k1", "label": "ill", "text": "Rest."}, {"id": "k2", "label": "ill", "text": "Drink."}]
    (tmp_path / "k.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    told = rewired(medical, knowledge=str(tmp_path / "k.jsonl"))
    assert ask(told, text="a a a a a a a", first=2.0)["treatment"] == [{"id": "k1", "text": "Rest."}, {"id": "k2", "text": "Drink."}]
    assert ask(told, text="b b b b b b b", first=-2.0)["treatment"] == []
    (tmp_path / "k.jsonl").write_text("".join(json.dumps(line | {"id": "k1"}) + "\n" for line in lines))
    with pytest.raises(UserError, match="second line 'k1'"):
        read_knowledge(str(tmp_path / "k.jsonl"), LABELS)
    with pytest.raises(UserError, match="no label 'ill'"):
        read_knowledge(str(tmp_path / "k.jsonl"), ("x", "y"))


def test_doubtful_answers_are_held_back(medical):
    strict = rewired(medical, precision=0.97)
    line = ask(strict, text="a b a b a b")
    assert line["abstained"] and line["answer"] is None and line["treatment"] == [] and line["differential"]
    assert not ask(strict, text="a a a a a a a", first=3.0, second=3.0)["abstained"]


def test_with_a_recall_few_of_the_positive_are_missed(medical, cases):
    """Of the held-out cases at least the share that was asked for, and of others about as many; no answer is held back."""
    careful = rewired(medical, recall=0.95)
    rows = simulate(1000, 9)[0]
    careful.answers([Record(row, "row") for row in rows])
    found = careful.summary()
    assert found["misses"] < 0.09 and found["answered"] == 1.0 and found["false_alarms"] > 0.2
    assert recall_threshold(np.array([0.9, 0.8, 0.7, 0.1]), 0.75) == 0.7 and recall_threshold(np.array([]), 0.9) == 0.0


def test_persons_are_masked_before_a_text_is_read(medical):
    text = "Call (212) 867-5309 or jane@clinic.example, a a"
    line = ask(medical, text=text)
    assert "jane@" not in json.dumps(line) and "867-5309" not in json.dumps(line)
    assert "jane@" in ask(rewired(medical, anonymize=False), text=text)["text"]


def test_an_explanation_adds_words_values_and_a_map(medical):
    told = rewired(medical, explain=True)
    row = simulate(1, 5, missing=0.0)[0][0]
    row.pop("outcome")
    text = "a a a a b a a"
    line = ask(told, **row | {"text": text})
    because, given = line["because"], told._answering
    assert {*because["values"]} == {*VALUES} and np.shape(because["image"]) == (4, 4) and len(because["words"]) == 3
    example = given.dataset.example(Record(row | {"text": text}, "row"))
    shorter = [text[: word["start"]] + text[word["start"] + 2 :] for word in because["words"]]
    whole, *less = given([example, *(example._replace(fields=example.fields | {"text": one}) for one in shorter)])
    place = int(whole.argmax())
    lost = [(log_odds(whole[place]) - log_odds(one[place])) / told._temperature for one in less]
    np.testing.assert_allclose([word["contribution"] for word in because["words"]], lost, rtol=1e-2, atol=1e-2)
    assert all(text[word["start"]] == word["word"] for word in because["words"])
    without = example._replace(parts=example.parts._replace(values=(None, *example.parts.values[1:])))
    lost_value = (log_odds(whole[place]) - log_odds(given([without])[0][place])) / told._temperature
    assert math.isclose(because["values"]["first"], lost_value, rel_tol=1e-2, abs_tol=1e-2)


def test_lines_do_not_depend_on_how_many_at_a_time_and_all_is_counted(medical):
    rows = [Record(row, "row") for row in simulate(20, 12)[0]]
    together = medical.answers(rows)
    again, third = Medical(medical._answering), Medical(medical._answering)
    apart = again.answers(rows[:7])
    third.restore(json.loads(json.dumps(again.state())))
    apart += third.answers(rows[7:])
    assert [line["differential"] for line in apart] == [line["differential"] for line in together]
    assert third.summary() == medical.summary() and medical.summary()["accuracy"] > 0.5


def test_answers_are_told_apart_by_groups(medical):
    """Those that the options name; nothing else that a row says is kept, and what is another for every case is no group."""
    told = rewired(medical, positive=LABELS[0], groups=("site", "number"))
    rows = [row | {"site": "AB"[number % 2], "number": f"n{number}", "phone": "555"} for number, row in enumerate(simulate(40, 15)[0])]
    lines = told.answers([Record(row, "row") for row in rows])
    (found,) = [one.rows for one in told.sections() if "groups" in one.title]
    assert [row[:3] for row in found] == [["site", "A", "20"], ["site", "B", "20"]]
    assert "555" not in json.dumps(told.state())
    for place, row in enumerate(found):
        own = [(line["differential"][0]["label"], one["outcome"]) for line, one in list(zip(lines, rows, strict=True))[place::2]]
        assert float(row[3]) == pytest.approx(np.mean([given == true for given, true in own]), abs=1e-3)
        assert int(row[4]) == sum(true == LABELS[0] != given for given, true in own)
    other = Medical(medical._answering)
    other._options = told._options
    other.restore(json.loads(json.dumps(told.state())))
    assert [one.rows for one in other.sections() if "groups" in one.title] == [found]


def test_pages_say_that_it_is_for_research(medical):
    medical.answers([Record(row, "row") for row in simulate(20, 12)[0]])
    sections = medical.sections()
    assert all(NOTICE in section.title for section in sections)
    shortcuts = {row[0]: float(row[1]) for row in sections[-1].rows}
    assert shortcuts["first"] > 0.6 and abs(shortcuts["absence of image"] - 0.5) < 0.1


def test_held_out_cases_of_one_label_have_no_area(run, shared, tmp_path):
    """Also in another process, which reads what the first has kept."""
    given = answering(run)
    given._evaluator = shared._evaluator
    held = [one for one in given.held_out() if one.label == LABELS[0]][:30]
    given.validation = lambda: (held, given(held))
    given.learned = lambda what, of=None: json_files.parse(json_files.dumps(what()))
    assert Medical(given).sections()[-1].rows[0] == ["the run, held-out cases", "none"]


def test_a_run_of_cases_explains_a_text(run):
    """Of a text alone, as if nothing else were known: the log-odds are those of such a case."""
    explained = subject_of(run, "a a a a", answer=LABELS[0])
    given = answering(run)
    (answer,) = given([given.dataset.example(Record({"text": "a a a a"}, "row"))])
    odds = explained.score(explained.params, explained.ids_T[None], np.zeros((1, len(explained.ids_T), 16), np.float32))
    np.testing.assert_allclose(np.asarray(odds), log_odds(answer[0]), rtol=1e-3, atol=1e-3)


def test_what_is_masked_in_rows_is_masked_in_training(cases, tmp_path):
    text = "Call (212) 867-5309 or jane@clinic.example, a a"
    for anonymize in (True, False):
        (example,) = dataset_of(experiment(cases, anonymize=anonymize)).read(Source(tmp_path, [{"text": text, "outcome": LABELS[0]}]))
        assert ("jane@" in example.fields["text"], "867-5309" in example.fields["text"]) == (not anonymize,) * 2


class Source:
    """As of TaskFile: a file to learn from."""

    def __init__(self, folder, rows):
        self.path, self.left_out = str(folder / "source.jsonl"), Counter()
        (folder / "source.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


# ------------------------------------------------------------------------------------------------------------------ as a task


def test_a_text_alone_is_a_case_without_the_rest(cases):
    """As `omnia explain` gives it; a run that reads no text says so."""
    dataset = dataset_of(experiment(cases))
    dataset.tokens = character_tokenizer(string.printable)
    given = Example({"text": "a a", "pair": ""}, None, "--prompt")
    (piece,) = dataset.pieces(given, labelled=False)
    (whole,) = dataset.pieces(dataset.example(Record({"text": "a a"}, "row")), labelled=False)
    np.testing.assert_array_equal(piece.beside, whole.beside)
    dataset = dataset_of(experiment(cases, sources=("table",)))
    dataset.tokens = character_tokenizer(string.printable)
    with pytest.raises(UserError, match="is no text"):
        dataset.pieces(given, labelled=False)


@pytest.mark.parametrize(("given", "name"), [("p1", "p1"), (" p1 ", "p1"), (1, "1"), (1.0, "1"), (1.5, "1.5"), (None, ""), (10**400, "")])
def test_names_of_a_patient(cases, given, name):
    dataset = dataset_of(experiment(cases, patient="patient"))
    assert dataset.example(Record({"text": "a", "patient": given}, "row")).fields.get("patient", "") == name


def test_a_case_of_nobody_is_an_error_of_its_row(cases, tmp_path):
    rows = [{"text": "a", "outcome": LABELS[0], "patient": name} for name in ("p", None, " ", 3)]
    source = Source(tmp_path, rows)
    with pytest.raises(UserError, match="line 2: patient names no patient"):
        dataset_of(experiment(cases, files=(source.path,), patient="patient", leave_out=False)).read(source)
    assert len(dataset_of(experiment(cases, files=(source.path,), patient="patient")).read(source)) == 2
    assert source.left_out.total() == 2


def test_a_marked_case_and_its_true_label_are_never_apart(cases):
    dataset = dataset_of(experiment(cases, judged="right"))
    row = {"text": "a b", "first": 1.0, "image": written(np.full((8, 8), 9))}
    marked = row | {"outcome": LABELS[0], "right": False, "probability": 0.4, "seen": "today"}
    keys = {dataset.key(dataset.example(Record(one, "row"))) for one in (row | {"outcome": LABELS[1]}, marked)}
    assert len(keys) == 1
    other = dataset.example(Record(row | {"first": 2.0}, "row"))
    assert dataset.key(other) not in keys


def test_judged_answers_do_not_count_for_how_frequent_labels_are(cases):
    dataset = dataset_of(experiment(cases, judged="right"))
    row = {"text": "a b", "outcome": LABELS[0], "probability": 0.4}
    true, judged = (dataset.example(Record(row | {"right": right}, "row")) for right in ("", True))
    assert dataset.counted_labels(true) == (LABELS[0],) and dataset.counted_labels(judged) == ()


def test_heads_of_other_columns_are_other_heads(cases):
    names = {
        dataset_of(experiment(cases, values=values)).fusion().name for values in (KNOWN, KNOWN[::-1], ("first: -6..6", "third: -6..6"))
    }
    assert len(names) == 3


def test_a_run_keeps_what_values_are_standardised_by(run, cases):
    rows = [json.loads(line) for line in (cases / "train.jsonl").read_text().splitlines()]
    first = [row["first"] for row in rows if "first" in row]
    fitted = run.experiment.objective.fitted
    np.testing.assert_allclose(fitted[:2], (np.mean(first), np.std(first)), rtol=1e-5)
    assert len(fitted) == 2 * (len(VALUES) + 36)


def test_a_run_that_was_stopped_goes_on_as_if_it_had_not_been(cases, tmp_path, monkeypatch):
    """With sources that are left out by chance, drawn by the rows."""
    made = dataclasses.replace(
        experiment(cases, steps=12, sources=("table", "image"), source_dropout=0.5), checkpoints=Checkpoints(every=5)
    )
    whole, stopped = (start(tmp_path / name, made) for name in ("whole", "stopped"))
    train(whole)
    train_and_stop(stopped.path, 7, monkeypatch)
    train(open_run(stopped.path))
    assert outcome(whole)[1] == outcome(open_run(stopped.path))[1]


def test_cases_of_a_patient_are_never_apart(cases, tmp_path):
    rows = [row | {"patient": f"p{number % 40}"} for number, row in enumerate(simulate(200, 4)[0])]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = experiment(cases, files=(str(tmp_path / "rows.jsonl"),), validation_files=(), validation=0.3, patient="patient")
    dataset = dataset_of(data)
    sources = dataset.open()
    learned, held = ({one.fields["patient"] for one in dataset.examples(sources, split)} for split in ("train", "validation"))
    assert len(held) == 12 and not learned & held
    other = tmp_path / "other.jsonl"
    other.write_text(json.dumps(rows[7] | {"text": "a b"}) + "\n")
    dataset = dataset_of(dataclasses.replace(data, data=dataclasses.replace(data.data, validation_files=(str(other),))))
    with pytest.raises(UserError, match="1 patients, such as p7"):
        dataset.check(dataset.open())


def test_privacy_refuses_what_is_measured_of_all_cases(cases, tmp_path):
    data = experiment(cases, sources=("table",), steps=2)
    private = dataclasses.replace(data, gradient=Private(noise_multiplier=1.0, delta=1e-5))
    with pytest.raises(UserError, match="standardise"):
        train(start(tmp_path / "refused", private))
    made = start(tmp_path / "run", dataclasses.replace(private, data=dataclasses.replace(data.data, standardise=False)))
    train(made)
    opened = open_run(made.path)
    assert opened.experiment.objective.fitted == ()
    assert [row[0] for row in Medical(answering(opened)).sections()[-1].rows] == ["the run, held-out cases"]
    kept = (made.path / "application.json").read_text()
    assert not any(name.partition(":")[0] in kept for name in KNOWN)


@pytest.mark.parametrize(("user", "refused"), [("", True), ("other", True), ("patient", False)])
@pytest.mark.parametrize("gradient", [Private(noise_multiplier=1.0), Federated(noise_multiplier=1.0, clip=0.1)])
def test_a_promise_for_patients_is_one_for_all_their_cases(cases, gradient, user, refused):
    data = experiment(cases, patient="patient", standardise=False)
    source = Source(cases, [{"text": "a", "outcome": label, "patient": label} for label in LABELS])
    private = dataclasses.replace(data, gradient=dataclasses.replace(gradient, user=user))
    private = dataclasses.replace(private, data=dataclasses.replace(private.data, files=(source.path,), validation_files=()))
    dataset = dataset_of(dataclasses.replace(private, objective=Supervised(labels=tuple(sorted(LABELS)))))
    if refused:
        with pytest.raises(UserError, match=r"gradient\.user"):
            dataset.check(dataset.open())
    else:
        dataset.check(dataset.open())


def test_marked_answers_are_never_tested_on(cases, tmp_path):
    rows = [row | ({"right": True, "probability": 0.5} if number % 2 else {}) for number, row in enumerate(simulate(200, 4)[0])]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    dataset = dataset_of(experiment(cases, files=(str(tmp_path / "rows.jsonl"),), validation_files=(), validation=0.5, judged="right"))
    sources = dataset.open()
    learned, held = (dataset.examples(sources, split) for split in ("train", "validation"))
    assert 30 < len(held) < 70 and all(one.parts.judged is None for one in held) and any(one.parts.judged for one in learned)


def test_what_a_physician_marked_is_learned_from(tmp_path):
    """Four labels; who says right or wrong never says which would have been right."""
    draw = np.random.default_rng(0)

    def drawn(count: int):
        labels = draw.integers(0, 4, count)
        centres = np.array([(-1, -1), (-1, 1), (1, -1), (1, 1)])[labels]
        return labels, centres + draw.normal(0, 0.7, (count, 2))

    def rows_of(labels, points, **more):
        return [
            {"first": float(x), "second": float(y), "outcome": f"k{label}"} | {name: one[place] for name, one in more.items()}
            for place, (label, (x, y)) in enumerate(zip(labels, points, strict=True))
        ]

    def save(name: str, rows) -> str:
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(tmp_path / name)

    character_tokenizer("ab").save(str(tmp_path / "tokenizer"))
    test_labels, test_points = drawn(2000)
    shared = {"sources": ("table",), "values": KNOWN, "positive": "", "rate": 5e-3, "steps": 600}
    shared["validation_files"] = (save("test.jsonl", rows_of(test_labels, test_points)),)
    few = save("few.jsonl", rows_of(*drawn(40)))
    begun = start(tmp_path / "begun", experiment(tmp_path, files=(few,), label_noise=0.5, **shared))
    before = train(begun)["validation"]["accuracy"]
    given = answering(open_run(begun.path))
    labels, points = drawn(3000)
    policy = np.stack(given([given.dataset.example(Record(row, "row")) for row in rows_of(labels, points)]))
    policy = 0.6 * policy + 0.1  # so that each answer is given now and then
    names = [int(name[1:]) for name in given.dataset.label_names]
    places = [draw.choice(len(names), p=one / one.sum()) for one in policy]
    answers = np.array([names[place] for place in places])
    marks = {"right": (answers == labels).tolist(), "probability": [float(one[place]) for one, place in zip(policy, places, strict=True)]}
    log = save("log.jsonl", rows_of(answers, points, **marks))
    learning = experiment(tmp_path, files=(log,), judged="right", **shared)
    taught = start(tmp_path / "taught", dataclasses.replace(learning, start=str(begun.path)))
    after = train(taught)["validation"]["accuracy"]
    oracle = float(np.mean(2 * (test_points[:, 0] > 0) + (test_points[:, 1] > 0) == test_labels))
    assert after > before + 0.1 and after > oracle - 0.05, (before, after, oracle)


@pytest.mark.parametrize("change", [{"right": "perhaps"}, {"probability": 0}, {"probability": "x"}, {"probability": 1.5}])
def test_marks_that_mean_nothing_are_errors(cases, change):
    dataset = dataset_of(experiment(cases, judged="right"))
    row = {"text": "a", "outcome": "ill", "right": False, "probability": 0.4}
    assert dataset.example(Record(row, "row")).parts.judged == (-1.0, 0.4)
    assert dataset.example(Record(row | {"right": None}, "row")).parts.judged is None
    with pytest.raises(UserError):
        dataset.example(Record(row | change, "row"))


@pytest.mark.parametrize(
    "change",
    [
        {"sources": ()},
        {"sources": ("text", "sound")},
        {"values": ("age: 9..1",)},
        {"values": ("age", "age")},
        {"values": ("outcome",)},
        {"values": ("sex: F|F",)},
        {"recall": 0.9, "positive": ""},
        {"precision": 1.2},
        {"clip": 0.0},
        {"pair": "x"},
    ],
)
def test_options_that_mean_nothing(cases, change):
    with pytest.raises(ValueError):
        experiment(cases, **change)


LEARNED = {"temperature": 1.0, "threshold": 0.5, "coverage": [], "odd": 2.0, "turned": [], "shortcuts": [], "held": {}}


def test_its_columns_are_what_it_reads(fake):
    options = {"values": ("age: 0..120", "sex: F|M", "pulse"), "patient": "patient", "judged": "right", "label": "outcome"}
    given = fake(MedicalCase(**options), LABELS, [])
    given.learned = lambda what, of=None: LEARNED
    made = Medical(given)
    check_columns(made, {"text": "a", "outcome": LABELS[0], "right": "yes", "probability": 0.5}, dataset=given.dataset)
    assert NOTICE in made.notice.lower()
    columns = made.columns
    assert columns["age"] == ("A number from 0 to 120.", "number") and columns["sex"].meaning == "One of F, M."
    assert columns["pulse"] == ("A number.", "number") and columns["image"].form == "image"


def test_where_images_alone_are_read_the_example_is_one(fake):
    given = fake(MedicalCase(sources=("image",)), LABELS, [])
    given.learned = lambda what, of=None: LEARNED
    made = Medical(given)
    assert made._read(Record(made.example, "row 1")).parts.image.shape == (32, 32)
