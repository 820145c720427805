"""What a report shows of a task stands in the page, whatever its labels and texts are."""

import io
import json
import sys

import numpy as np
import pytest
from PIL import Image

from train.experiment import Experiment
from train.kinds import Section
from train.loop.report import write_report
from train.loop.sections import write_sections
from train.runs.serialize import to_json
from train.tasks.metrics.classification import classification_scores
from train.tasks.metrics.entities import entity_scores
from train.tasks.pictures import MOST_CLASSES, WORST, calibration_picture, classes_picture, confusion_picture, task_sections, worst_errors


@pytest.fixture
def run_dir(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"format": 1, "experiment": to_json(Experiment()), "defaults": to_json(Experiment())}))
    return tmp_path


def scores_of(names, count=200):
    rng = np.random.default_rng(0)
    return classification_scores(rng.integers(0, len(names), count), rng.dirichlet(np.ones(len(names)), count), names)


@pytest.mark.parametrize("names", [["no", "yes"], ["<b>$\\frac$", "微博", "a" * 90, "_"], [str(n) for n in range(3 * MOST_CLASSES)]])
def test_every_table_becomes_a_picture(names):
    """Of two classes, of labels that a drawing could take for formulas, and of more classes than a picture holds."""
    tables = scores_of(names).tables
    for draw, table in ((confusion_picture, "confusion"), (classes_picture, "per_class"), (calibration_picture, "calibration")):
        picture = Image.open(io.BytesIO(draw(tables[table])))
        assert picture.format == "PNG" and min(picture.size) > 250 and max(picture.size) < 2000
    assert classes_picture(entity_scores([["B-PER", "O"]], [["B-PER", "B-LOC"]]).tables["per_type"])


def test_a_picture_shows_what_the_table_says():
    """Another confusion is another picture, and classes that are never true have no bar."""
    rows = [{"true": "a", "answers": {"a": 8, "b": 2}}, {"true": "b", "answers": {"a": 0, "b": 5}}]
    assert confusion_picture(rows) != confusion_picture([rows[0], rows[1] | {"answers": {"a": 5, "b": 0}}])
    one = {"class": "a", "f1": 0.5, "count": 3}
    assert classes_picture([one, {"class": "b", "f1": 0.0, "count": 0}]) == classes_picture([one])


def test_the_worst_errors_come_first():
    losses = np.random.default_rng(0).permutation(3 * WORST).astype(float)
    section = worst_errors([{"where": f"a.csv: line {n}", "text": "x" * 9999, "probabilities": [1]} for n in range(len(losses))], losses)
    assert section.columns == ("loss", "where", "text") and len(section.rows) == WORST
    assert [float(row[0]) for row in section.rows] == sorted(losses, reverse=True)[:WORST]
    assert all(losses[int(row[1].rpartition(" ")[2])] == float(row[0]) and len(row[2]) < 500 for row in section.rows)


def test_sections_are_in_the_page_and_are_text(run_dir):
    """Also when the report is drawn again from the run directory alone; sections of a later evaluation replace them."""
    lines = [{"where": "a.csv: line 2", "text": "<script>alert(1)</script>", "label": "yes", "answer": None}]
    write_sections(run_dir, task_sections(scores_of(["no", "yes"]), lines, [2.5]))
    page = write_report(run_dir).read_text()
    assert page == write_report(run_dir).read_text() and page.count("data:image/png") == 3
    assert "<h2>Answers by class</h2>" in page and "<td>2.5</td><td>a.csv: line 2</td><td>&lt;script&gt;alert(1)" in page
    assert "<script" not in page
    write_sections(run_dir, [Section("<i>", {}, ("a",), [["b"]]), Section("of nothing")])
    page = write_report(run_dir).read_text()
    assert "<h2>&lt;i&gt;</h2>" in page and "of nothing" not in page and "Worst errors" not in page


def test_without_matplotlib_the_tables_stand(run_dir, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    sections = task_sections(scores_of(["no", "yes"]), [{"text": "t"}], [2.5])
    write_sections(run_dir, sections)
    page = write_report(run_dir).read_text()
    assert not any(sections[0].pictures.values()) and "<td>2.5</td><td>t</td>" in page and "<td>yes</td>" in page
