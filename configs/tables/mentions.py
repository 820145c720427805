"""Mentions of companies: how many of the windows that people marked the monitor finds, and how many alerts lie outside of them.

omnia reproduce mentions --data DIR
"""

import csv
import datetime
import json
import math
import statistics
import sys
from pathlib import Path
from typing import Any

import numpy as np

from train.apps.monitor.surges import Windows
from train.reproduce.files import PublicFile
from train.reproduce.resampling import drawn, drawn_mean
from train.reproduce.table import Better, Metric, Row, Table

HOUR, DAY, WEEK = 3600, 86_400, 7 * 86_400
DIGESTS = {
    "AAPL": "826f5cf404c2890784a7824f7102fd00cb134a4948e12e44ec320d095cbbc217",
    "AMZN": "234f5e63f19a62720dfb7ccfd6ecc8349b94d93b33ef8aafbdb17edda0b654f3",
    "CRM": "e7133bf26479623d58fc7367107aea1cd7df6020420dece48b0eee4d26cdb28a",
    "CVS": "f0bdc89cba3dd2265b47069187c750eeae18ef48f76f86067ee26ea1af9c3114",
    "FB": "a7096bd646759486bda6796b5600cd33a4590f0842bf274ea7acba001b3ba591",
    "GOOG": "3a39cc23d1ff6a0f234b55298d0c46c21d2e94ddb81a0dad9e1e46e3aaa9ec90",
    "KO": "f3aa8157043c6569911031535bd1f7a73b428b5a2d95238d79b9d5b88ceebbd2",
    "PFE": "18d2804d6a5dae63fe711baaba9242dce38a32bfade3dcdee1d8a7c1a866e41b",
}
FOLDER = "applications/nab_tweet_volume"
MARKS = PublicFile("marks", f"{FOLDER}/windows.json", "4ae31f342eb58f2e5ac79e27fdc70792bce4195f7699b227ef5b576d9840c2be")
FILES = (MARKS, *(PublicFile(name, f"{FOLDER}/{name}.csv", digest) for name, digest in DIGESTS.items()))
"""Mentions on Twitter in each five minutes, and the windows of what is unusual (Lavin and Ahmad 2015, MIT)."""
RULES: dict[str, tuple[str, float]] = {
    "usual": ("the monitor, as it is set: 0.05 false alarms a day allowed", 0.05),
    "rare": ("the monitor, 0.0001 a day allowed", 1e-4),
    "rarest": ("the monitor, 0.0000001 a day allowed", 1e-7),
    "deviations4": ("five minutes above the last day's mean by four standard deviations, of logarithms", 4),
    "deviations6": ("by six", 6),
}


def get_table() -> Table:
    given = " ".join(f"{{{file.name}}}" for file in FILES)
    return Table(
        title="Mentions of companies",
        paper="Lavin and Ahmad 2015 (NAB, realTweets)",
        claim="Hours that are unlikely after the last weeks find more of what people marked, with fewer alerts elsewhere, than a "
        "threshold on the last day.",
        metrics=(
            Metric("found", "marked windows found", "share", lower_is_better=False),
            Metric("false", "other alerts a week, for each company", "alerts"),
        ),
        files=FILES,
        rows=tuple(Row(rule, what, (f"python {{table}} {rule} {given}",)) for rule, (what, _) in RULES.items()),
        claims=(
            *(
                Better(rule, other, metric=metric)
                for rule, other in (("rare", "deviations4"), ("rarest", "deviations6"))
                for metric in ("", "other alerts a week, for each company")
            ),
        ),
        note="Eight companies, about 54 days each, 26 marked windows. Nothing is drawn by chance, so seeds are alike. How many alarms are "
        "allowed, and how many deviations, was chosen with these series in sight. Allowed alarms are of streams that are no wider than "
        "they were; mentions come in bursts that nobody marked, so there are more. Others dispute the marks.",
    )


def seconds(text: str) -> int:
    return int(datetime.datetime.fromisoformat(text.split(".")[0]).replace(tzinfo=datetime.UTC).timestamp())


def alerts(rule: str, counts: list[tuple[int, int]]) -> list[int]:
    """Times at which a rule tells: of the monitor the last second of the hour."""
    level = RULES[rule][1]
    if not rule.startswith("deviations"):
        windows, found = Windows(HOUR, level, 5), []
        for time, count in counts:
            for _ in range(count):
                windows.add("t", time)
            if windows.closes(time):
                found += [surge.end - 1 for surge in windows.close(time)[0]]
        return found
    logs = [math.log1p(count) for _, count in counts]
    day, found, alerting = DAY // 300, [], False
    for place in range(day, len(logs)):
        past = logs[place - day : place]
        high = logs[place] > statistics.fmean(past) + level * statistics.pstdev(past)
        if high and not alerting:
            found.append(counts[place][0])
        alerting = high
    return found


def measured(rule: str, marks: str, series: list[str]) -> dict[str, Any]:
    windows = json.loads(Path(marks).read_text())
    hits, others, weeks, whose = list[bool](), list[int](), list[float](), list[str]()
    for name, path in zip(DIGESTS, series, strict=True):
        with open(path) as file:
            counts = [(seconds(row["timestamp"]), int(float(row["value"]))) for row in csv.DictReader(file)]
        spans = [(seconds(begin), seconds(end) + HOUR) for begin, end in windows[name]["windows"]]
        told = alerts(rule, counts)
        hits += [any(begin <= time <= end for time in told) for begin, end in spans]
        whose += [name] * len(spans)
        others.append(sum(not any(begin <= time <= end for begin, end in spans) for time in told))
        weeks.append((counts[-1][0] - counts[0][0]) / WEEK)
    false = drawn(len(weeks), lambda places: np.take(others, places).sum() / np.take(weeks, places).sum())
    draws = {"found": drawn_mean(hits, whose), "false": false}
    return {"found": sum(hits) / len(hits), "false": sum(others) / sum(weeks), "draws": draws}


if __name__ == "__main__":
    rule, marks, *series = sys.argv[1:]
    print(json.dumps(measured(rule, marks, series)))
