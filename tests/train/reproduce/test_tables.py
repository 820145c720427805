"""The tables of configs/tables/: their commands are ones that omnia takes, and docs/tables.md says what was measured of them."""

import re
import shlex

import pytest

import omnia
from data.errors import UserError
from train.loop.checks import check_options
from train.reproduce import page, verdict
from train.reproduce.results import PUBLISHED, read
from train.reproduce.table import PLACEHOLDER, ROOT, TABLES, load_table, table_names, table_path
from train.verbs.arguments import parse
from train.verbs.config_files import load_config
from train.verbs.train import Train

NAMES = table_names()
LONGEST_MINUTES = 40


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
            default = Train("x", load_config(words[2]))
            found = parse(Train, "train", words[3:], default)
            assert found.experiment.seed == 3, job.name
            check_options(found.experiment)
        elif words[0] == "omnia":
            assert words[1] in omnia.VERBS
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
        assert found.total_minutes < LONGEST_MINUTES and found.hardware and verdict.of_table(table, tier, found.values)
    assert (PUBLISHED / f"{name}.png").is_file()


def test_page_is_made_of_the_stored_results():
    assert (ROOT / "docs" / "tables.md").read_text() == page.page(), "make docs"


def test_every_picture_belongs_to_a_table():
    assert {path.stem for path in PUBLISHED.iterdir()} <= set(NAMES)


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
