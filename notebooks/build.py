"""The notebooks: NAME.py, in percent format, is what people edit; NAME.ipynb is made of it; executed/NAME.ipynb is a run of that.

python notebooks/build.py OWNER/NAME              write NAME.ipynb, without outputs
python notebooks/build.py OWNER/NAME --execute    and run them all, or those whose numbers follow

A notebook that raises SystemExit stops there: something it needs is missing, and its last line says what.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

HERE = Path(__file__).resolve().parent
EXECUTED = HERE / "executed"
UNKNOWN = "OWNER/NAME"
"""What the Makefile's REPOSITORY is where nobody has said where the code is published."""
LONGEST_CELL = 1200
"""Seconds."""

COLAB = (
    "[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]"
    "(https://colab.research.google.com/github/{repository}/blob/main/notebooks/{name}.ipynb)"
)
INSTALL = """\
# Installs Omnia where it is missing, for the chip that is there. Skip it elsewhere.
import importlib.util, os, shutil, subprocess, sys

REPOSITORY = "{repository}"
if importlib.util.find_spec("omnia") is None:
    if REPOSITORY == "{unknown}":
        raise SystemExit("Omnia is not installed here, and REPOSITORY does not say where it is: set it to OWNER/NAME on GitHub.")
    tpu = any(map(os.path.exists, ("/dev/accel0", "/dev/vfio/0")))
    extras = "plots,hf,media,metrics,serve" + (",cuda12" if shutil.which("nvidia-smi") else ",tpu" if tpu else "")
    if not os.path.isdir("omnia-source"):
        subprocess.run(["git", "clone", "--quiet", "--depth", "1", f"https://github.com/{{REPOSITORY}}", "omnia-source"], check=True)
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "-e", f"./omnia-source[{{extras}}]"], check=True)
    sys.path.insert(0, os.path.abspath("omnia-source"))"""


def sources() -> list[Path]:
    """The notebooks in the order of their numbers."""
    return sorted(HERE.glob("[0-9]*_*.py"), key=lambda path: int(number_of(path)))


def number_of(source: Path) -> str:
    return source.stem.partition("_")[0]


def notebook_of(source: Path, repository: str) -> nbformat.NotebookNode:
    """The notebook of a percent file: a badge under its title, then the cell that installs, then the file's own cells."""
    cells = jupytext.reads(source.read_text(), fmt="py:percent").cells
    title = cells[0]
    assert title.cell_type == "markdown" and title.source.startswith("# "), f"{source}: begins with no title"
    heading, _, rest = title.source.partition("\n")
    title.source = f"{heading}\n\n{COLAB.format(repository=repository, name=source.stem)}\n{rest}"
    cells.insert(1, nbformat.v4.new_code_cell(INSTALL.format(repository=repository, unknown=UNKNOWN)))
    for number, cell in enumerate(cells):
        cell.id, cell.metadata = f"cell-{number}", nbformat.NotebookNode()
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel, "language_info": {"name": "python"}})


def text_of(notebook: nbformat.NotebookNode) -> str:
    """As it lies on disk."""
    return nbformat.writes(notebook) + "\n"


def execute(notebook: nbformat.NotebookNode, environment: dict[str, str] | None = None) -> str:
    """Run a notebook, whose cells get their outputs, in a temporary folder. Returns why it stopped before its end, or nothing."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, **(environment or {}), "TMPDIR": folder}
        environment.pop("MPLBACKEND", None)  # pictures belong into the notebook, whatever the process around it has set
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(HERE.parent), environment.get("PYTHONPATH"))))
        client = NotebookClient(notebook, timeout=LONGEST_CELL, resources={"metadata": {"path": folder}})
        client.create_kernel_manager()
        client.km.transport, client.km.ip = "ipc", f"{folder}/kernel"  # by default it listens on ports, and says so
        with client.setup_kernel(env=environment):
            for number, cell in enumerate(notebook.cells):
                try:
                    client.execute_cell(cell, number)
                except CellExecutionError as error:
                    if error.ename != "SystemExit":
                        raise
                    return error.evalue
    return ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repository")
    parser.add_argument("--execute", nargs="*", metavar="NUMBER", choices=[number_of(source) for source in sources()])
    options = parser.parse_args()
    failed = []
    for source in sources():
        notebook = notebook_of(source, options.repository)
        source.with_suffix(".ipynb").write_text(text_of(notebook))
        if options.execute is None or (options.execute and number_of(source) not in options.execute):
            continue
        began = time.monotonic()
        try:
            stopped = execute(notebook)
        except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
            failed.append(source.stem)
            stopped = f"FAILED\n{error}"
        EXECUTED.mkdir(exist_ok=True)
        (EXECUTED / f"{source.stem}.ipynb").write_text(text_of(notebook))
        print(f"{source.stem:24} {time.monotonic() - began:6.0f} s  {stopped}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
