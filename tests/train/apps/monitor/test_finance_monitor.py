"""A stream of posts: what is counted, what is not, and when somebody is told."""

import dataclasses
import json

import numpy as np
import pytest

from data.errors import UserError
from data.records.record import Record
from tests.train.apps.columns import check_columns
from train.apps.monitor.finance_monitor import FinanceMonitor, Monitor, seconds_of, written

LABELS = ("negative", "neutral", "positive")
HELD = [(label, label) for label in LABELS for _ in range(40)] + [("negative", "positive")] * 20
HOUR = 3600


@pytest.fixture
def make(fake):
    def monitor(**options) -> Monitor:
        return Monitor(fake(FinanceMonitor(**options), LABELS, HELD))

    return monitor


def item(hour: float, label: str, number: int, topic: str = "A", **more):
    words = "alpha beta gamma delta epsilon zeta eta theta iota kappa".split()
    text = " ".join([label, *(words[int(digit)] for digit in f"{number:05d}")])
    return Record({"text": text, "time": int(hour * HOUR), "topic": topic} | more, f"line {number}")


def lines_of(monitor, rows, kind: str = ""):
    return [line for line in [*monitor.answers(rows), *monitor.finish()] if not kind or line.get("kind") == kind]


def quiet(hours: int, seed: int = 0):
    rng, rows = np.random.default_rng(seed), []
    for hour in range(hours):
        rows += [item(hour + 0.5, "negative", len(rows) + n) for n in range(rng.poisson(4))]
        rows += [item(hour + 0.6, "positive", len(rows) + n) for n in range(5)]
    return rows


def test_windows_count_each_item_once(make):
    rows = quiet(6)
    windows = lines_of(make(), rows, "window")
    assert len(windows) == 6
    for name in LABELS:
        assert sum(window["counts"][name] for window in windows) == sum(row["text"].startswith(name) for row in rows)


def test_a_surge_is_told_once_with_posts_of_it(make):
    rows = quiet(60)
    rows += [item(60.5, "negative", 50_000 + n) for n in range(60)] + [item(61.5, "negative", 60_000 + n) for n in range(50)]
    rows += [item(62.5, "neutral", 70_000)]
    (alert,) = lines_of(make(), rows, "alert")
    assert alert["topic"] == "A" and alert["negative"] == 60 and alert["expected"] < 12 and alert["probability"] < 1e-6
    assert alert["to"] == written(61 * HOUR) and len(alert["posts"]) == 3 and all(post.split()[1] == "zeta" for post in alert["posts"])
    assert all(post.startswith("negative") for post in alert["posts"])


def test_posts_of_an_alert_are_of_its_windows(make):
    """Also where the window behind them closes together with them."""
    rows = quiet(60) + [item(60.5, "negative", 10_000 + n) for n in range(60)] + [item(61.05, "negative", 50_000 + n) for n in range(20)]
    (alert,) = lines_of(make(), [*rows, item(63.5, "neutral", 70_000)], "alert")
    assert alert["to"] == written(61 * HOUR) and all(post.split()[1] == "beta" for post in alert["posts"])


def test_a_window_is_told_as_soon_as_nobody_can_be_in_time_for_it(make):
    monitor = make(late_minutes=10)
    assert not [line for line in monitor.answers([item(1.1, "negative", 1), item(2.1, "neutral", 2)]) if line["kind"] == "window"]
    assert [line["kind"] for line in monitor.answers([item(2.2, "neutral", 3)])] == ["topic", "window"]
    assert [line["kind"] for line in monitor.answers([item(3.2, "neutral", 4)])] == ["window"]


def test_positive_posts_are_no_surge(make):
    rows = quiet(60) + [item(60.5, "positive", 50_000 + n) for n in range(200)]
    assert not lines_of(make(), rows, "alert")


def test_what_comes_again_late_or_from_one_hand_is_not_counted(make):
    monitor = make(late_minutes=0)
    again = [item(1.1, "negative", 7) for _ in range(5)]
    again += [Record(again[0] | {"text": f"RT @somebody{n}: {again[0]['text']}! https://x.example/{n}"}, "") for n in range(5)]
    loud = [item(1.2, "negative", 100 + n, author="loud") for n in range(50)]
    windows = lines_of(monitor, [*again, *loud, item(2.5, "neutral", 1), item(1.3, "negative", 99)], "window")
    assert windows[0]["counts"]["negative"] == 1 + 3
    found = monitor.summary()
    assert (found["repeated"], found["of one author"], found["late"], found["items"]) == (9, 47, 1, 62)


def test_an_item_that_is_not_too_late_is_counted_in_its_window(make):
    rows = [item(1.9, "negative", 1), item(2.1, "neutral", 2), item(1.95, "negative", 3), item(4, "neutral", 4)]
    windows = lines_of(make(late_minutes=10), rows, "window")
    assert windows[0]["from"] == written(HOUR) and windows[0]["counts"]["negative"] == 2


def test_a_text_that_comes_back_after_a_day_counts_again(make):
    rows = [item(hour, "negative", 7) for hour in (1, 20, 25.5, 40, 50)]  # the first, and the first a day after one that counted
    assert sum(window["counts"]["negative"] for window in lines_of(make(), rows, "window")) == 3


def test_a_silence_ends_once_some_items_agree(make):
    rows = [item(24 * day, "negative", n) for n, day in enumerate((1, 20, 20.1, 20.2, 20.3, 400, 400.1, 400.2))]
    monitor = make()
    lines = lines_of(monitor, rows)
    assert sum("error" in line for line in lines) == 4 and monitor.summary()["items"] == 4


@pytest.mark.parametrize("given", ["1424563200", "1424563200.0", 1424563200, "2015-02-22T00:00:00Z", "2015-02-22", "20150222"])
def test_times_of_tables_are_read(given):
    assert seconds_of(given, "") == 1424563200


def test_names_of_authors_are_not_kept_beyond_their_window(make):
    monitor = make()
    lines_of(monitor, [item(hour, "negative", hour, author=f"name{hour}") for hour in range(1, 9)])
    assert "name1" not in json.dumps(monitor.state()["closed"]) and monitor.state()["closed"]


def test_labels_of_a_stream_are_not_looked_at(make):
    rows = [item(1.1, "negative", n, sentiment=value) for n, value in enumerate((None, "", [], 5, "unknown"))]
    assert not [line for line in lines_of(make(), rows) if "error" in line]


def test_other_languages_are_counted_and_not_judged(make):
    monitor = make(languages=("en",))
    rows = [item(1.1, "negative", 1), Record({"text": "negative 这家公司的股票跌得很厉害", "time": HOUR, "topic": "A"}, "")]
    windows = lines_of(monitor, rows, "window")
    assert windows[0]["counts"]["negative"] == 1 and monitor.summary()["foreign"] == 1


@pytest.mark.parametrize(
    "row",
    [
        {"time": 1, "topic": "A"},
        {"text": "x", "topic": "A"},
        {"text": "x", "time": "yesterday", "topic": "A"},
        {"text": "x", "time": float("nan"), "topic": "A"},
        {"text": "x", "time": 1_700_000_000_000, "topic": "A"},
        {"text": "x", "time": "2199-01-01", "topic": "A"},
        {"text": "x", "time": 1, "topic": ""},
        {"text": "x", "time": 1},
    ],
)
def test_items_that_are_wrong_stop_nothing(make, row):
    monitor = make()
    lines = lines_of(monitor, [item(1.1, "negative", 1), Record(row, "line 2"), item(1.2, "negative", 2)])
    assert sum("error" in line for line in lines) == 1 and monitor.summary()["items"] == 2


def test_a_clock_that_is_ahead_does_not_close_the_windows_of_others(make):
    lines = lines_of(make(), [item(1.1, "negative", 1), item(24 * 30, "negative", 2), item(1.2, "negative", 3)])
    assert sum("error" in line for line in lines) == 1
    assert [line["counts"]["negative"] for line in lines if line.get("kind") == "window"] == [2]


def test_lines_do_not_depend_on_how_a_stream_is_divided_or_interrupted(make):
    rows = quiet(40) + [item(40.5, "negative", 50_000 + n) for n in range(60)] + [item(42.5, "neutral", 70_000)]
    rows += [item(24 * 30 + n / 10, "negative", 80_000 + n) for n in range(4)]  # ahead, until the third
    whole = lines_of(make(), rows)
    for size in (1, 7, 64):
        found, state = [], None
        for first in range(0, len(rows), size):
            monitor = make()  # a process that was ended, and goes on
            if state is not None:
                monitor.restore(json.loads(json.dumps(state)))
            found += monitor.answers(rows[first : first + size])
            state = monitor.state()
        assert found + monitor.finish() == whole


def test_memory_is_bounded(make, monkeypatch):
    monkeypatch.setattr("train.apps.monitor.finance_monitor.REMEMBERED", 50)
    monkeypatch.setattr("train.apps.monitor.finance_monitor.AUTHORS", 50)
    monitor = make()
    monitor.answers([item(1 + n / 1000, "negative", n, author=str(n)) for n in range(900)])
    sizes = [len(json.dumps(monitor.state()))]
    for day in range(1, 4):
        monitor.answers([item(24 * day + n / 1000, "negative", 1000 * day + n, author=str(n)) for n in range(900)])
        sizes.append(len(json.dumps(monitor.state())))
    assert sizes[-1] < 1.2 * sizes[1]


def test_topics_are_bounded_too(make, monkeypatch):
    monkeypatch.setattr("train.apps.monitor.surges.TOPICS", 20)
    monitor = make()
    for hour in range(1, 60):
        monitor.answers([item(hour + n / 100, "negative", hour * 10 + n, topic=f"{hour} {n} " + "x" * 1000) for n in range(3)])
    state = monitor.state()
    assert len(state["trend"]) <= 20 and len(state["windows"]["topics"]) <= 20 and max(map(len, state["trend"])) <= 200


def test_shares_are_corrected_by_what_is_mistaken_for_what(make):
    """A third of what is called negative here is positive: counts as the confusions would give them are taken back."""
    monitor = make()
    true = np.array([0.2, 0.3, 0.5])
    counts = true @ monitor._confusion * 100_000
    found = monitor._corrected([int(count) for count in counts])
    assert list(found.values()) == pytest.approx(true, abs=0.02)


def test_times():
    assert seconds_of("1970-01-02T00:00:00", "") == seconds_of("1970-01-02T02:00:00+02:00", "") == seconds_of(86400.9, "") == 86400
    assert written(86400) == "1970-01-02T00:00:00Z"
    for wrong in ("soon", None, True, float("inf"), -1, "1969-01-01"):
        with pytest.raises(UserError):
            seconds_of(wrong, "time")


def test_options_are_checked():
    for wrong in ({"window_minutes": 7}, {"false_alarms": 0.0}, {"several": True}, {"least": 0}):
        with pytest.raises(ValueError, match=r"data"):
            FinanceMonitor(**wrong)
    assert dataclasses.replace(FinanceMonitor(), window_minutes=30).window_minutes == 30


def test_its_columns_are_what_it_reads(make):
    some = make()
    check_columns(some, {"text": "a", "time": "2024-05-01T12:00:00Z", "topic": "b"}, dataset=some._answering.dataset)
