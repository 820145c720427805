"""A file or folder is built beside its place and renamed: it is there whole, or not at all."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from data.errors import UserError
from data.files.storage import sync_folder

MARK = "made-by-omnia"
"""A file that tells a folder of ours, which a killed process may have left, from anyone else's."""


@contextlib.contextmanager
def built_beside(target: Path) -> Iterator[Path]:
    """A path, to be written to, that becomes `target` when the block ends well. UserError where something of others has the name of the
    folder that it lies in meanwhile."""
    target = target.absolute()
    partial = target.with_name(target.name + ".partial")
    if partial.is_dir() and ((partial / MARK).is_file() or not any(partial.iterdir())):
        shutil.rmtree(partial)
    if partial.exists():
        raise UserError(f"{partial}: is in the way, and was not left by Omnia", f"Move it away, or choose another name than {target.name}.")
    partial.mkdir(parents=True)
    try:
        (partial / MARK).touch()
        yield partial / "whole"
        (partial / "whole").rename(target)
    finally:
        shutil.rmtree(partial)
    sync_folder(str(target.parent))
