"""The notebooks: what is checked in is what their sources make, they use the rooms' faces, and they run."""

import ast
import importlib
import importlib.util
import re
import subprocess
from pathlib import Path

import jupytext
import nbformat
import pytest
from nbclient.exceptions import CellTimeoutError, DeadKernelError

from notebooks import build

ROOT = Path(__file__).parent.parent
REPOSITORY = re.search(r"^REPOSITORY \?= (\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[1]
SMALLER = {r"\bsteps=\d+": "steps=4", r"\bevery=\d+0": "every=2", "sentencepiece:1024": "byte", r"/\*\.py": "/*url*.py"}
"""How a notebook becomes small enough for a test; everything else of it runs as it is written."""
ROOMS = ("data", "model", "train")
by_name = pytest.mark.parametrize("source", build.sources(), ids=lambda source: source.stem)


@by_name
def test_a_notebook_is_what_its_source_makes(source):
    made = build.notebook_of(source, REPOSITORY)
    assert source.with_suffix(".ipynb").read_text() == build.text_of(made), f"run `make notebooks`: {source.name} has changed"
    code = [cell for cell in made.cells if cell.cell_type == "code"]
    assert code[0].source.startswith("# Installs Omnia")
    assert not any(cell.outputs or cell.execution_count for cell in code)
    nbformat.validate(made)


def test_every_notebook_has_a_source_and_a_line_in_the_docs():
    assert {path.stem for path in build.HERE.glob("*.ipynb")} == {source.stem for source in build.sources()}
    page = (ROOT / "docs" / "notebooks.md").read_text()
    for source in build.sources():
        assert f"../notebooks/{source.stem}.ipynb" in page


@by_name
def test_names_come_from_the_faces_of_the_rooms(source):
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Import):
            assert not {name.name.split(".")[0] for name in node.names} & set(ROOMS)
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] in ROOMS:
            assert node.module in ROOMS, f"{node.module} is no face"
            assert {name.name for name in node.names} <= set(importlib.import_module(node.module).__all__)


@by_name
def test_prose_types_no_number_that_a_cell_could_compute(source):
    for cell in jupytext.reads(source.read_text(), fmt="py:percent").cells:
        if cell.cell_type == "markdown":
            assert not re.search(r"\d\.\d|\d ?%|\d (?:seconds|minutes|MB|nats|tokens|parameters)", cell.source), cell.source


class TestInstallCell:
    """Of someone who opens a notebook where Omnia is not installed."""

    @pytest.fixture(autouse=True)
    def elsewhere(self, monkeypatch, tmp_path):
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr("sys.path", [])

    def install(self, repository: str) -> None:
        exec(build.INSTALL.format(repository=repository, unknown=build.UNKNOWN), {})

    def test_it_says_what_is_missing_where_nobody_knows_the_repository(self):
        with pytest.raises(SystemExit, match="OWNER/NAME"):
            self.install(build.UNKNOWN)

    def test_it_fetches_and_installs_with_extras_that_exist(self, monkeypatch):
        commands = []
        monkeypatch.setattr(subprocess, "run", lambda command, check: commands.append(command))
        self.install("someone/omnia")
        clone, pip = commands
        assert "https://github.com/someone/omnia" in clone
        for extra in re.search(r"\[(.*)\]", pip[-1])[1].split(","):
            assert f'"{extra}":' in (ROOT / "setup.py").read_text()

    def test_it_goes_on_with_what_was_fetched_before(self, monkeypatch):
        commands = []
        monkeypatch.setattr(subprocess, "run", lambda command, check: commands.append(command))
        Path("omnia-source").mkdir()
        self.install("someone/omnia")
        assert [command[1:3] for command in commands] == [["-m", "pip"]]


class TestBuild:
    @pytest.fixture(autouse=True)
    def two_empty_notebooks(self, monkeypatch, tmp_path):
        for number in "12":
            (tmp_path / f"{number}_empty.py").write_text("# %% [markdown]\n# # Empty\n")
        monkeypatch.setattr(build, "HERE", tmp_path)
        monkeypatch.setattr(build, "EXECUTED", tmp_path / "executed")

    def test_it_refuses_numbers_that_no_notebook_has(self, monkeypatch, capsys):
        monkeypatch.setattr("sys.argv", ["build.py", "someone/omnia", "--execute", "1", "3"])
        with pytest.raises(SystemExit):
            build.main()
        assert "invalid choice: '3'" in capsys.readouterr().err

    @pytest.mark.parametrize("error", [CellTimeoutError("it took too long"), DeadKernelError("the kernel died")], ids=["slow", "dead"])
    def test_the_others_run_where_one_fails(self, monkeypatch, capsys, error):
        failures = [error]

        def execute(notebook):
            if failures:
                raise failures.pop()
            return ""

        monkeypatch.setattr(build, "execute", execute)
        monkeypatch.setattr("sys.argv", ["build.py", "someone/omnia", "--execute"])
        assert build.main() == 1
        first, second = capsys.readouterr().out.split("2_empty")
        assert "FAILED" in first and str(error) in first and "FAILED" not in second


def run(source: Path, smaller: dict[str, str]) -> nbformat.NotebookNode:
    notebook = build.notebook_of(source, REPOSITORY)
    for cell in notebook.cells:
        for found, instead in smaller.items():
            cell.source = re.sub(found, instead, cell.source)
    # Neither the eight devices of the tests, nor code that takes longer to compile than to run.
    if stopped := build.execute(notebook, {"XLA_FLAGS": "--xla_backend_optimization_level=0"}):
        assert build.number_of(source) == "3", stopped
        pytest.skip(stopped)  # a published model that cannot be fetched
    return notebook


def assert_it_shows_its_pictures(notebook) -> None:
    """One for each `plt.show()` that is written, or more: some are called again and again."""
    wanted = sum(cell.source.count("plt.show()") for cell in notebook.cells if cell.cell_type == "code")
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= wanted > 0


@pytest.mark.parametrize(
    "source", [source for source in build.sources() if build.number_of(source) in ("1", "4", "10")], ids=lambda source: source.stem
)
def test_a_cheap_notebook_runs_in_small(source):
    assert_it_shows_its_pictures(run(source, SMALLER))


@pytest.mark.slow
@by_name
def test_a_notebook_runs_as_it_is(source):
    assert_it_shows_its_pictures(run(source, {}))
