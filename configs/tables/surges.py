"""Surges in a stream: how many are found, and how many alerts are false, beside rules that people use.

omnia reproduce surges
"""

import json
import sys
from collections.abc import Sequence

from train.apps.monitor.surges import Windows
from train.reproduce.table import Better, Metric, Row, Table

HOUR, DAYS, WARM = 3600, 120, 7
"""Days of a simulation, of which the first are for learning what is usual."""
MEAN, LENGTH, BETWEEN = 8.0, 3, 48
"""Items in an hour on average, hours of a surge, and hours from one to the next, about."""
RULES = {
    "windows": "Omnia's monitor, 0.05 false alarms a day allowed",
    "deviations": "above the last day's mean by three standard deviations",
    "last": "twice the hour before",
    "poisson": "Poisson of the hour's mean on the last seven days, 0.05 a day",
}


def get_table() -> Table:
    return Table(
        title="Surges in a stream",
        paper="Lavin and Ahmad 2015 (NAB: windows and false alarms are counted)",
        claim="Surges of three hours are found within the hour, with few false alarms, where simple rules miss them or cry wolf.",
        metrics=(
            Metric("three", "surges to three times as many found", "share", lower_is_better=False),
            Metric("five", "to five times", "share", lower_is_better=False),
            Metric("false", "false alarms a day", "alerts"),
            Metric("delay", "hours until an alert, three times", "hours"),
        ),
        rows=tuple(Row(rule, what, (f"python {{table}} {rule} {{seed}}",)) for rule, what in RULES.items()),
        claims=(
            Better("windows", 0.65),
            Better("windows", 0.93, metric="to five times"),
            Better("windows", 0.06, metric="false alarms a day"),
            Better("windows", "deviations"),
            Better("windows", "poisson"),
        ),
        note=f"Simulated: {MEAN:g} items an hour on average, with a wave over the day, surges of {LENGTH} hours about every two days; "
        f"{DAYS} days of each kind, the first {WARM} not counted. False alarms are counted on a stream without surges.",
    )


def alerts(rule: str, counts: Sequence[int]) -> list[int]:
    """Hours at which a rule begins to tell of a surge."""
    import numpy as np
    from scipy import stats

    if rule == "windows":
        windows, found = Windows(HOUR, 0.05, 5), []
        for hour, count in enumerate(counts):
            for _ in range(count):
                windows.add("t", hour * HOUR)
            found += [surge.end // HOUR - 1 for surge in windows.close((hour + 1) * HOUR)[0]]
        return found
    high = []
    for hour in range(24 * WARM, len(counts)):
        day, same = counts[hour - 24 : hour], counts[hour - 24 * WARM : hour : 24]
        high.append(
            {
                "deviations": counts[hour] > np.mean(day) + 3 * np.std(day),
                "last": counts[hour] > 2 * max(counts[hour - 1], 1),
                "poisson": stats.poisson.sf(counts[hour] - 1, max(np.mean(same), 0.5)) <= 0.05 / 24,
            }[rule]
        )
    return [24 * WARM + place for place, now in enumerate(high) if now and not (place and high[place - 1])]


def measured(rule: str, seed: int) -> dict[str, float]:
    import numpy as np

    found: dict[str, float] = {}
    shape = 1 + 0.6 * np.sin(np.arange(24) / 24 * 2 * np.pi)
    for name, times in (("three", 3.0), ("five", 5.0), ("false", 1.0)):
        rng = np.random.default_rng([seed, int(times)])
        starts = np.arange(24 * WARM, 24 * DAYS - BETWEEN, BETWEEN)
        starts += rng.integers(0, 24, len(starts))
        factor = np.ones(24 * DAYS)
        for start in starts:
            factor[start : start + LENGTH] = times
        counts = rng.poisson(MEAN * np.tile(shape, DAYS) * factor).tolist()
        told = np.array([hour for hour in alerts(rule, counts) if hour >= 24 * WARM])
        if times == 1.0:
            found[name] = len(told) / (DAYS - WARM)
            continue
        hits = [told[(told >= start) & (told < start + LENGTH)] for start in starts]
        found[name] = float(np.mean([len(hit) > 0 for hit in hits]))
        if name == "three":
            found["delay"] = float(np.mean([hit[0] - start for hit, start in zip(hits, starts, strict=True) if len(hit)] or [LENGTH]))
    return found


if __name__ == "__main__":
    print(json.dumps(measured(sys.argv[1], int(sys.argv[2]))))
