"""The page holds what the run directory holds, needs nothing else, and cannot be broken by what a model writes."""

import base64
import html.parser
import json
import re
import sys

import pytest

from data.errors import UserError
from train.experiment import Experiment
from train.explain import occlusion
from train.generation import media
from train.loop.report import write_report
from train.loop.telemetry import Telemetry
from train.runs.serialize import to_json


@pytest.fixture
def run_dir(tmp_path):
    experiment = Experiment(name="tiny <run>", steps=40)
    config = {"format": 1, "experiment": to_json(experiment), "defaults": to_json(Experiment()), "shards": [{"path": "s", "digest": "d1"}]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "environment.json").write_text(json.dumps({"device": "abacus", "versions": {"jax": "9.9"}, "cores": 2}))
    (tmp_path / "summary.json").write_text(json.dumps({"tokens": 81920, "seconds": 75.0, "padding": 0.004, "timing": {"checkpoint": 1.5}}))
    with Telemetry(tmp_path, total_steps=40) as told:
        for step in range(10, 41, 10):
            values = {
                "loss": 50 / step,
                "gradient_norm": 1.0,
                "learning_rate": 1e-3,
                "tokens_per_second": 1234.0,
                "data_wait": 0.1,
                "step_ms": 7.0,
            }
            told.train(step, values)
        told.anomaly(30, {"cursor": 960, "rows": [928, 959], "loss": float("nan"), "gradient_norm": float("inf"), "action": "skip"})
        told.anomaly(30, {"cursor": 960, "action": "rewind", "to": 20})
        told.evaluation(20, {"loss": 2.25, "bits_per_byte": 1.75})
        told.evaluation(40, {"loss": 2.5, "bits_per_byte": 1.875})
        told.sample(40, "", "<script>alert(1)</script></pre>&amp;\ud800\x00")
    return tmp_path


def test_pictures_that_runs_draw_are_in_the_page(run_dir):
    """Those of answers and of written media, by the names that their files have."""
    (run_dir / "plots").mkdir(exist_ok=True)
    for name in (occlusion.NAME, media.NAME):
        (run_dir / "plots" / name).write_bytes(name.encode())
    page = write_report(run_dir).read_text()
    for name in (occlusion.NAME, media.NAME):
        assert base64.b64encode(name.encode()).decode() in page
    (run_dir / "plots" / occlusion.NAME).rename(run_dir / "plots" / "looks.png")  # as runs of format 1 have it
    assert base64.b64encode(occlusion.NAME.encode()).decode() in write_report(run_dir).read_text()


class Page(html.parser.HTMLParser):
    """Checks that tags are balanced, and collects texts and tags."""

    def __init__(self, text):
        super().__init__()
        self.open, self.texts, self.tags = [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def test_page_shows_the_run(run_dir):
    page = Page(write_report(run_dir).read_text())
    shown = set(page.texts)
    assert {"2.5000", "nats per token; best 2.2500 at step 20", "1.8750", "81.9 K", "75.0 s", "1,234", "unknown"} <= shown
    assert {"peak of abacus not known", "versions.jax", "9.9", "checkpoint", "1.5 s", "7.0 ms", "d1"} <= shown
    assert {"928 to 959", "skipped", "back to step 20"} <= shown


def test_a_metric_that_is_named_score_is_no_score_of_a_policy(run_dir):
    """It stands beside the loss, as any metric does, and is no mean over prompts or games."""
    with Telemetry(run_dir, total_steps=40) as told:
        told.evaluation(40, {"loss": 2.125, "score": 0.75})
    assert "nats per token; best 2.1250 at step 40" in Page(write_report(run_dir).read_text()).texts


def test_configuration_lists_exactly_what_differs_from_the_defaults(run_dir):
    text = write_report(run_dir).read_text()
    section = text[text.index("<h2>Configuration") : text.index("<h2>Timing")]
    fields = re.findall(r"<tr><td>([a-z_.]+)</td><td>([^<]*)</td><td>([^<]*)</td></tr>", section)
    assert fields == [("name", "tiny &lt;run&gt;", "experiment"), ("steps", "40", "1000")]


def test_page_needs_nothing_else(run_dir):
    page = Page(write_report(run_dir).read_text())
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "link", "iframe"})
    links = [value for _, attributes in page.tags for name, value in attributes.items() if name in ("src", "href")]
    assert len(links) == 4
    assert all(link.startswith("data:image/png;base64,") for link in links)
    assert sorted(path.name for path in (run_dir / "plots").iterdir()) == sorted(
        ["loss.png", "learning_rate.png", "gradient_norm.png", "throughput.png"]
    )


def test_what_the_model_wrote_is_text(run_dir):
    page = Page(write_report(run_dir).read_text())
    assert any("<script>alert(1)</script></pre>&amp;?" in text for text in page.texts)


def test_a_long_run_stays_below_a_megabyte(run_dir):
    with Telemetry(run_dir, total_steps=5000) as told:
        for step in range(1, 801):
            told.train(step, {"loss": 1.0 + 1 / step, "tokens_per_second": 1e4 + step % 7})
            if step % 20 == 0:
                for _ in range(10):
                    told.sample(step, "p", "x" * 5_000)
    path = write_report(run_dir)
    assert path.stat().st_size < 1_000_000
    shown = Page(path.read_text()).texts
    assert "step 20" in shown
    assert "step 800" in shown
    assert "304 more in metrics.jsonl." in shown


def test_without_matplotlib_the_numbers_stand(run_dir, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    page = Page(write_report(run_dir).read_text())
    assert "pip install 'omnia[plots]'" in page.texts
    assert {"2.25", "2.5"} <= set(page.texts)


def test_a_baseline_stands_beside_the_model(run_dir):
    """Its loss among the first numbers, over as many tokens, and as a line in the picture, which so differs from the one without it."""
    without = (write_report(run_dir), (run_dir / "plots" / "loss.png").read_bytes())[1]
    summary = json.loads((run_dir / "summary.json").read_text())
    summary["baseline"] = {"name": "7-gram", "loss": 2.375, "tokens": 4321}
    (run_dir / "summary.json").write_text(json.dumps(summary))
    assert {"7-gram", "2.3750", "nats per token, over the same 4,321"} <= set(Page(write_report(run_dir).read_text()).texts)
    assert (run_dir / "plots" / "loss.png").read_bytes() != without


def test_a_run_that_has_only_begun_has_a_page(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"format": 1, "experiment": to_json(Experiment()), "defaults": to_json(Experiment())}))
    assert "No metrics yet." in Page(write_report(tmp_path).read_text()).texts


def test_not_a_run_is_said(tmp_path):
    with pytest.raises(UserError, match="not a run"):
        write_report(tmp_path)
