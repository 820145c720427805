"""Who can be told apart in a table: beside counting by hand, and coarser tables whose groups are large enough and lose nothing else."""

import csv
import json
import math
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import wasserstein_distance

import omnia
from data.anonymize.grouping import Grouping
from data.anonymize.groups import column_of, groups_of, report_of
from data.anonymize.mondrian import generalized, partition
from data.errors import UserError


def by_hand(known: list[tuple], sensitive: list[str], ordered: bool) -> dict:
    """The report of a table by dictionaries."""
    groups = defaultdict(list)
    for row, value in zip(known, sensitive, strict=True):
        groups[row].append(value)
    values = sorted(set(sensitive), key=float if ordered else str)
    whole, most = Counter(sensitive), 0.0
    for held in groups.values():
        own = Counter(held)
        share, of_all = [[count[v] / count.total() for v in values] for count in (own, whole)]
        if ordered:
            places = np.arange(len(values))
            distance = wasserstein_distance(places, places, share, of_all) / max(len(values) - 1, 1)
        else:
            distance = sum(map(abs, np.subtract(share, of_all))) / 2
        most = max(most, distance)
    entropies = [-sum(n / len(held) * math.log(n / len(held)) for n in Counter(held).values()) for held in groups.values()]
    return {
        "k": min(map(len, groups.values())),
        "groups": len(groups),
        "sizes": {str(size): count for size, count in sorted(Counter(map(len, groups.values())).items())},
        "alone": [number for number, row in enumerate(known, 1) if len(groups[row]) == 1],
        "l": min(len(set(held)) for held in groups.values()),
        "entropy_l": math.exp(min(entropies)),
        "t": most,
    }


def table(seed: int, rows: int = 200) -> dict[str, list[str]]:
    rng = np.random.default_rng(seed)
    return {
        "age": rng.integers(20, 60, rows).astype(str).tolist(),
        "town": rng.choice(["Aa", "Bb", "Cc", ""], rows, p=(0.6, 0.2, 0.1, 0.1)).tolist(),
        "weight": rng.normal(70, 9, rows).round(1).astype(str).tolist(),
        "illness": rng.choice(["flu", "cold", "none"], rows).tolist(),
        "salary": rng.choice(["9", "10", "100", "20"], rows).tolist(),
    }


@pytest.mark.parametrize("sensitive, ordered", [("illness", False), ("salary", True)])
@pytest.mark.parametrize("known", [("town",), ("town", "age")])
def test_the_report_is_what_counting_by_hand_gives(known, sensitive, ordered):
    columns = table(0)
    made = [column_of(name, columns[name]) for name in known]
    found = report_of(groups_of(made), [column_of(sensitive, columns[sensitive])])
    found |= found["sensitive"][sensitive]
    meant = by_hand(list(zip(*(columns[name] for name in known), strict=True)), columns[sensitive], ordered)
    for name, value in meant.items():
        assert found[name] == (pytest.approx(value) if isinstance(value, float) else value), name


def test_distances_of_the_paper():
    """Li et al. 2007, sec. 3.4: salaries of 3 to 11 thousand; a group of 3, 4, 5 is at 0.375, one of 6, 8, 11 at 0.167."""
    salaries = column_of("salary", ["3", "4", "5", "6", "8", "11", "7", "9", "10"])
    far = report_of(np.array([0, 0, 0, 1, 1, 1, 1, 1, 1]), [salaries])["sensitive"]["salary"]["t"]
    assert far == pytest.approx(0.375)
    near = report_of(np.array([1, 2, 1, 0, 0, 0, 2, 1, 2]), [salaries])["sensitive"]["salary"]["t"]
    assert near == pytest.approx(1 / 6, abs=1e-9)


@pytest.mark.parametrize("k", [2, 7, 60])
def test_groups_are_large_enough_and_as_small_as_cuts_allow(k):
    columns = [column_of(name, cells) for name, cells in table(1).items() if name in ("age", "town", "weight")]
    groups = partition(columns, k)
    assert sorted(np.concatenate(groups).tolist()) == list(range(200)) and min(map(len, groups)) >= k
    for rows in groups:
        for column in columns:
            codes = np.sort(column.codes[rows])
            sides = [int((codes <= value).sum()) for value in np.unique(codes)[:-1]]
            median = codes[(len(codes) - 1) // 2]
            beside = {int((codes <= median).sum()), int((codes < median).sum())}
            assert not any(k <= side <= len(rows) - k for side in beside.intersection(sides)), "could have been cut"
    cells, loss = generalized(columns, groups)
    assert 0 < loss["certainty_penalty"] < 1 and loss["average_group"] == 200 / len(groups)
    for column, own in zip(columns, cells, strict=True):
        for row, cell in enumerate(own):
            value = column.values[column.codes[row]]
            low, dots, high = cell.partition("..")
            assert float(low) <= float(value) <= float(high) if dots else value in cell.split(" | ")
    made = [column_of("", own) for own in cells]
    assert report_of(groups_of(made), [])["k"] >= k


def test_what_is_the_same_already_stays():
    columns = [column_of("a", ["x", "y"] * 10)]
    cells, loss = generalized(columns, partition(columns, 10))
    assert cells == [["x", "y"] * 10] and loss["certainty_penalty"] == 0


def write(path: Path, columns: dict[str, list[str]]) -> None:
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(columns), delimiter="\t" if path.suffix == ".tsv" else ",")
        writer.writeheader()
        writer.writerows(rows)


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl"])
def test_a_file_gets_k_and_keeps_the_rest(tmp_path, suffix, capsys):
    write(tmp_path / f"t{suffix}", table(2) | {"note": ["mail a@b.co"] * 200})
    (tmp_path / "key").write_bytes(b"k" * 32)
    names = ["--quasi-identifiers", "age", "town", "--sensitive", "illness", "--k", "6", "--key-file", str(tmp_path / "key")]
    assert omnia.main(["anonymize", str(tmp_path / f"t{suffix}"), "--output", str(tmp_path / f"o{suffix}"), *names, "--json"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])["groups"]
    assert found["k"] >= 6 > found["before"]["k"] == 1 and found["rows_alone"] == 0 and found["sensitive"]["illness"]["l"] >= 1
    manifest = json.loads((tmp_path / f"o{suffix}.anonymization.json").read_text())
    assert manifest["groups"] == found and manifest["counts"] == {"EMAIL": 200}
    text = (tmp_path / f"o{suffix}").read_text()
    if suffix == ".jsonl":
        rows = [json.loads(line) for line in text.splitlines()]
    else:
        rows = list(csv.DictReader(text.splitlines(), delimiter="\t" if suffix == ".tsv" else ","))
    assert min(Counter((row["age"], row["town"]) for row in rows).values()) >= 6
    assert [row["weight"] for row in rows] == table(2)["weight"] and "[EMAIL:" in rows[0]["note"]
    assert omnia.main(["anonymize", str(tmp_path / f"o{suffix}"), "--output", str(tmp_path / f"again{suffix}"), *names]) == 0
    assert (tmp_path / f"again{suffix}").read_text() == text


@pytest.mark.parametrize(
    "options, said",
    [
        ({"quasi_identifiers": ("height",)}, "no column height"),
        ({"quasi_identifiers": ("age",), "sensitive": ("age",)}, "age is named twice"),
        ({"quasi_identifiers": ("age",), "k": 1}, "--k 1"),
        ({"quasi_identifiers": ("age",), "k": 201}, "has 200 rows"),
        ({"quasi_identifiers": (), "sensitive": ("age",)}, "need --quasi-identifiers"),
    ],
)
def test_mistakes_are_named_and_nothing_is_written(tmp_path, options, said, capsys):
    write(tmp_path / "t.csv", table(0))
    arguments = []
    for name, value in options.items():
        values = [str(value)] if isinstance(value, int) else list(value)
        arguments += [f"--{name.replace('_', '-')}", *values] if values else []
    assert omnia.main(["anonymize", str(tmp_path / "t.csv"), "--output", str(tmp_path / "o.csv"), *arguments]) == 2
    assert said in capsys.readouterr().err and not (tmp_path / "o.csv").exists()


def test_rows_that_are_none_are_named():
    for content, suffix, said in (("a,b\n1,2\n3\n", ".csv", "line 3"), ('{"a": [1]}\n', ".jsonl", "line 1"), ("a\n", ".csv", "no rows")):
        with pytest.raises((UserError, ValueError), match=said):
            Grouping(("a",))(content, suffix)
