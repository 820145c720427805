"""The tables of configs/tables/: their commands are ones that omnia takes, and docs/tables.md says what was measured of them."""

import itertools
import re
import shlex

import numpy as np
import pytest
import tyro

import omnia
from data.errors import UserError
from data.files import json_files
from data.media.preparation.prepare import PrepareMedia
from data.text.prepare import PrepareText
from train.loop.checks import check_options
from train.reproduce import page, verdict
from train.reproduce.picture import draw
from train.reproduce.results import PUBLISHED, Results, read
from train.reproduce.table import PLACEHOLDER, ROOT, TABLES, Metric, Row, Shared, Table, load_table, table_names, table_path
from train.runs.classes import load_file
from train.verbs.apply import Apply
from train.verbs.arguments import parse
from train.verbs.attack import Attack
from train.verbs.config_files import load_config, with_kinds
from train.verbs.evaluate import Evaluate
from train.verbs.federate import Split
from train.verbs.import_ import Import
from train.verbs.label import Label
from train.verbs.privacy import Plant
from train.verbs.train import Train

NAMES = table_names()
OTHERS = {
    "apply": ("apply", Apply),
    "attack": ("attack", Attack),
    "evaluate": ("evaluate", Evaluate),
    "import": ("import", Import),
    "label": ("label", Label),
    "prepare text": ("prepare text", PrepareText),
    "prepare images": ("prepare images", PrepareMedia),
    "federate split": ("federate split", Split),
    "privacy plant": ("privacy plant", Plant),
}
"""Verbs that commands of tables have beside `train`, with their options."""
LONGEST_MINUTES = 100
"""Of processor time, for three seeds: 50 minutes on two cores. A judge of coherence needs 47, before which it tells nothing."""


def commands(name: str):
    """(row or shared job, command as words), with placeholders filled in."""
    table = load_table(table_path(name))
    for job in (*table.shared, *table.rows):
        for command in job.commands:
            yield job, shlex.split(PLACEHOLDER.sub(lambda found: {"table": str(table_path(name)), "seed": "3"}.get(found[1], "x"), command))


@pytest.mark.parametrize("name", NAMES)
def test_commands_are_understood(name):
    """Every config is there, every option is one, and what they make together is an experiment."""
    for job, words in commands(name):
        if words[:2] == ["omnia", "train"]:
            default = Train("x", with_kinds(load_config(words[2]), words[3:]))
            found = parse(Train, "train", words[3:], default)
            assert found.experiment.seed == 3 or isinstance(job, Shared), job.name
            check_options(found.experiment)
        elif words[0] == "omnia":
            two = words[1] in ("prepare", "federate", "privacy")
            verb, options = OTHERS[" ".join(words[1 : 3 if two else 2])]
            parse(options, verb, words[3 if two else 2 :], PrepareMedia(tyro.MISSING, "images") if options is PrepareMedia else None)
        elif words[1] != "-m":
            assert words[1].endswith(".py") and (ROOT / words[1]).is_file()


@pytest.mark.parametrize("name", NAMES)
def test_tables_are_complete(name):
    table = load_table(table_path(name))
    assert table.of_tier("cpu") and table.claim.endswith(".") and re.search(r"\d{4}", table.paper)
    assert table.claims or any(row.paper is not None for row in table.rows)


@pytest.mark.parametrize("name", sorted(path.stem for path in PUBLISHED.glob("*.json")))
def test_published_results_are_those_of_their_tables(name):
    table = load_table(table_path(name))
    for tier, found in read(PUBLISHED / f"{name}.json").items():
        rows, metrics = {row.name for row in table.of_tier(tier)}, {metric.name for metric in table.metrics}
        assert set(found.values) <= metrics and all(set(by_row) <= rows for by_row in found.values.values())
        assert rows == set(found.values[table.metrics[0].name]), "all rows, or it is not published"
        seeds = max(len(numbers) for by_row in found.values.values() for numbers in by_row.values())
        assert found.total_minutes * 3 / seeds < LONGEST_MINUTES and found.hardware and verdict.of_table(table, tier, found.values)
    assert all((PUBLISHED / f"{name}.{tier}.png").is_file() for tier in read(PUBLISHED / f"{name}.json"))


def test_page_is_made_of_the_stored_results():
    assert (ROOT / "docs" / "tables.md").read_text() == page.page(), "make docs"


def test_every_picture_belongs_to_a_table():
    assert {path.name.partition(".")[0] for path in PUBLISHED.iterdir()} <= set(NAMES)


def test_list_says_what_was_measured(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert omnia.main(["reproduce", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == NAMES and all("cpu: " in line for line in lines)


@pytest.mark.parametrize(
    "arguments, what",
    [
        ([], "which table"),
        (["chess"], "no such table"),
        (["nanogpt", "--rows", "worst"], "no row 'worst'"),
        (["ppo_clip", "--tier", "pod"], "no rows of tier pod"),
        (["nanogpt", "--seeds", "0"], "--seeds must be positive"),
        (["--list", "--publish"], "--publish does not go with --list"),
    ],
)
def test_mistakes_are_said(arguments, what, capsys):
    assert omnia.main(["reproduce", *arguments]) == 2
    assert what in capsys.readouterr().err


def test_file_of_ones_own_that_is_no_table(tmp_path):
    (tmp_path / "mine.py").write_text("def get_table():\n    return 1 / 0\n")
    with pytest.raises(UserError, match=r"mine.py: line 2: ZeroDivisionError"):
        load_table(tmp_path / "mine.py")
    assert TABLES.is_dir()


def test_best_of_n_is_the_mean_over_all_choices():
    """Its closed form equals an enumeration of all choices of n responses."""
    module = load_file(str(TABLES / "overoptimisation.py"))
    proxy, gold = np.random.default_rng(0).normal(size=(2, 7))
    for count in (1, 3, 7):
        best = [max(choice, key=lambda place: proxy[place]) for choice in itertools.combinations(range(7), count)]
        np.testing.assert_allclose(module.best_of(proxy, gold, count), (proxy[best].mean(), gold[best].mean()))


def test_copied_letters_are_worth_what_the_table_says(tmp_path):
    """The bound below which only a model that remembers gets: half of the letters are known."""
    module = load_file(str(TABLES / "memory.py"))
    module.write(tmp_path / "letters.jsonl")
    texts = [json_files.parse(line)["text"] for line in (tmp_path / "letters.jsonl").read_text().splitlines()]
    assert all(text[: module.LETTERS] == text[-module.LETTERS :] and len(text) + 1 == module.LENGTH for text in texts)
    assert pytest.approx(np.log(26) * module.LETTERS / module.LENGTH) == module.LUCK


@pytest.mark.parametrize("kind", ["dots", "series", "across"])
def test_every_kind_of_picture_is_drawn(tmp_path, kind):
    metrics = (Metric("a", "a"), Metric("b", "b"))
    rows = tuple(
        Row(f"r{n}", "", ("python x",), x=None if kind == "dots" else 2.0**n, series="s" if kind == "series" else "") for n in range(5)
    )
    table = Table("t", "p 2000", "c.", metrics, rows, (), across="b" if kind == "across" else "", x="x")
    values = {name: {row.name: {0: 1.0, 1: 1.1} for row in rows[:4]} for name in ("a", "b")}
    draw(tmp_path / "t.png", table, "cpu", Results(values, {}, 1.0, "", "", {}))
    assert (tmp_path / "t.png").stat().st_size > 5000
