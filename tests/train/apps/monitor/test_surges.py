"""Surges of counts: how often they are found, and how often one is told where nothing happened."""

import json

import numpy as np
import pytest
from scipy import stats

from train.apps.monitor import surges as told
from train.apps.monitor.surges import DAY, Windows, tail

HOUR = 3600
SHAPE = 1 + 0.6 * np.sin(np.arange(24) / 24 * 2 * np.pi)


def stream(days: int, seed: int, surges: dict[int, float] = {}, mean: float = 8.0):  # noqa: B006 - read alone
    """Counts by hour, with more in the afternoon; surges: hour -> how many times as many."""
    rng = np.random.default_rng(seed)
    return [int(rng.poisson(mean * SHAPE[hour % 24] * surges.get(hour, 1.0))) for hour in range(24 * days)]


def watched(counts, false_alarms: float = 0.05):
    """Hours at which an alert is told."""
    windows, found = Windows(HOUR, false_alarms, 5), []
    for hour, count in enumerate(counts):
        windows.add("t", hour * HOUR, count)
        surges, _ = windows.close((hour + 1) * HOUR)
        found += [surge.end // HOUR - 1 for surge in surges]
    return found


def test_few_alarms_are_false():
    """At most as many as are allowed, with room for chance: 150 days, so 7.5 are expected at most."""
    alarms = sum(hour >= 7 * 24 for seed in range(5) for hour in watched(stream(37, seed)))
    assert alarms <= 12


@pytest.mark.parametrize(("times", "least"), [(3.0, 0.65), (5.0, 0.93)])
def test_surges_of_three_hours_are_found(times, least):
    starts = list(range(8 * 24 + 3, 50 * 24, 53))
    surges = {start + hour: times for start in starts for hour in range(3)}
    found = [watched(stream(50, seed, surges)) for seed in range(3)]
    hits = [[any(start <= hour < start + 3 for hour in alerts) for start in starts] for alerts in found]
    assert np.mean(hits) >= least


def test_one_surge_is_told_once_and_a_second_again():
    counts = stream(12, 1)
    for start in (9 * 24 + 2, 10 * 24 + 6):
        counts[start : start + 5] = [80] * 5
    assert [hour for hour in watched(counts) if hour >= 9 * 24] == [9 * 24 + 2, 10 * 24 + 6]


def test_a_topic_without_history_is_new_and_no_surge():
    windows = Windows(HOUR, 0.05, 5)
    for hour in range(23):
        windows.add("old", hour * HOUR, 3)
        if hour == 10:
            windows.add("fresh", hour * HOUR, 500)
        surges, fresh = windows.close((hour + 1) * HOUR)
        assert not surges and fresh == (["old"] if hour == 0 else ["fresh"] if hour == 10 else [])


def test_a_topic_that_was_hardly_there_is_new_when_it_comes_in_numbers():
    """As when a collection begins to ask for it: three items in four days, then many."""
    windows, told = Windows(HOUR, 0.05, 5), []
    for hour in range(120):
        for _ in range(40 if hour >= 96 else int(hour in (3, 40, 80))):
            windows.add("t", hour * HOUR)
        surges, fresh = windows.close((hour + 1) * HOUR)
        told += [(hour, "surge") for _ in surges] + [(hour, "new") for _ in fresh]
    assert told == [(3, "new"), (96, "new")]


def test_a_level_that_stays_becomes_the_usual_one():
    """Told once as it rises; a burst a week later is told again, and no window is in a surge by then."""
    counts = stream(20, 1)[: 24 * 20] + stream(12, 2, mean=24.0)
    counts[24 * 28 : 24 * 28 + 2] = [900] * 2
    found = watched(counts)
    assert [hour for hour in found if 24 * 21 + 6 < hour < 24 * 28] == []
    assert any(24 * 20 <= hour < 24 * 20 + 6 for hour in found) and 24 * 28 in found


def test_a_second_surge_soon_after_the_first_is_told():
    counts = stream(12, 4)
    for start in (9 * 24 + 2, 9 * 24 + 5):
        counts[start] = 120
    counts[9 * 24 + 3 : 9 * 24 + 5] = [0, 0]
    assert [hour for hour in watched(counts) if hour >= 9 * 24] == [9 * 24 + 2, 9 * 24 + 5]


@pytest.mark.parametrize("minutes", [5, 360, 1440])
def test_windows_of_other_widths_find_a_burst_and_are_else_quiet(minutes):
    rng, width = np.random.default_rng(minutes), 60 * minutes
    windows, found, count = Windows(width, 0.05, 5), [], 600 if minutes == 5 else 60
    for number in range(count):
        for _ in range(int(rng.poisson(6 if number != count - 10 else 90))):
            windows.add("t", number * width)
        found += [surge.end // width - 1 for surge in windows.close((number + 1) * width)[0]]
    assert count - 10 in found and len(found) <= 3


def test_few_topics_are_remembered_and_silent_ones_forgotten(monkeypatch):
    monkeypatch.setattr(told, "TOPICS", 20)
    windows = Windows(HOUR, 0.05, 5)
    for number in range(100):
        windows.add(str(number), number * HOUR)
        windows.close((number + 1) * HOUR)
    assert windows.topics == {str(number) for number in range(80, 100)}
    for hour in range(100, 100 + 24 * 29):
        windows.add("t", hour * HOUR)
        windows.close((hour + 1) * HOUR)
    assert windows.topics == {"t"}


def test_who_is_late_for_the_first_window_is_in_time():
    windows = Windows(HOUR, 0.05, 5)
    windows.add("t", HOUR + 300)
    windows.close(HOUR - 300)
    assert windows.is_open(HOUR - 100)


def test_a_silence_and_a_clock_far_ahead_end():
    windows = Windows(HOUR, 0.05, 5)
    windows.add("t", 0)
    windows.close(HOUR)
    assert windows.close(10_000 * DAY) == ([], [])
    windows.add("t", 10_000 * DAY)
    assert windows.is_open(10_000 * DAY) and not windows.is_open(9_000 * DAY)


def test_what_ends_a_silence_is_counted():
    """The first items behind it are a topic's beginning, which is told."""
    windows = Windows(HOUR, 0.05, 5)
    windows.add("t", 0)
    windows.close(HOUR)
    windows.add("t", 60 * DAY, 3)
    windows.add("u", 60 * DAY + HOUR)
    assert windows.close(60 * DAY + HOUR) == ([], ["t"]) and windows.close(60 * DAY + 2 * HOUR) == ([], ["u"])
    assert windows._topics["t"].past[0][:2] == (1, 3)


def test_what_is_expected_is_by_its_definition():
    """Hour by hour, in words of the definition."""
    windows, counts = Windows(HOUR, 0.05, 5), stream(9, 4)
    for hour, count in enumerate(counts):
        windows.add("t", hour * HOUR, count)
        windows.close((hour + 1) * HOUR)
    past = windows._topics["t"].past
    usual = [count for _, count, _, surge in past if not surge]
    mean = sum(usual) / len(usual)
    counted = [mean if surge else count for _, count, _, surge in past]

    def share(hour):
        own = [count for place, count in enumerate(counted) if (place - len(counted)) % 24 == hour]
        return (sum(own) / mean + told.PRIOR) / (len(own) + told.PRIOR)

    day = [share((place - len(counted)) % 24) for place in range(len(counted) - 24, len(counted))]
    level = (sum(counted[-24:]) + told.PRIOR * mean) / (sum(day) + told.PRIOR)
    assert windows.expected("t") == pytest.approx(level * share(0), rel=1e-12)


def test_a_watch_that_goes_on_tells_the_same():
    counts = stream(12, 3)
    counts[230:233] = [90] * 3
    whole, found, state = watched(counts), [], None
    for hour, count in enumerate(counts):
        windows = Windows(HOUR, 0.05, 5)
        if state is not None:
            windows.restore(json.loads(json.dumps(state)))
        windows.add("t", hour * HOUR, count)
        found += [surge.end // HOUR - 1 for surge in windows.close((hour + 1) * HOUR)[0]]
        state = windows.state()
    assert found == whole and 230 in whole


def test_tails():
    """By adding up what is below, and by moments: a width of 2 is a variance of twice the mean."""
    assert tail(0, 3.0, 1.0) == 1.0
    assert tail(5, 3.0, 1.0) == pytest.approx(1 - sum(stats.poisson.pmf(count, 3.0) for count in range(5)))
    below = np.array([1 - tail(count + 1, 6.0, 2.0) for count in range(200)])
    mass = np.diff(below, prepend=0)
    mean = (mass * np.arange(200)).sum()
    assert mean == pytest.approx(6.0, rel=1e-6) and (mass * np.arange(200) ** 2).sum() - mean**2 == pytest.approx(12.0, rel=1e-6)
