"""Sections that a run's data adds to its report: kept in the run directory, so that the report can be drawn from that alone."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data.files import json_files, storage
from train.kinds import Section

NAME = "sections.json"


def write_sections(run_dir: Path, sections: Sequence[Section]) -> None:
    """Replace the sections of a run, if it has or had any. Pictures go to plots/."""
    stored = _stored(run_dir, sections)
    if stored or (run_dir / NAME).is_file():
        json_files.write(run_dir / NAME, stored)


def add_sections(run_dir: Path, sections: Sequence[Section], prefixes: tuple[str, ...]) -> None:
    """Add sections of something that was measured after training, in place of earlier ones whose titles begin with any of `prefixes`."""
    kept = [section for section in read_sections(run_dir) if not section["title"].startswith(prefixes)]
    json_files.write(run_dir / NAME, kept + _stored(run_dir, sections))


def _stored(run_dir: Path, sections: Sequence[Section]) -> list[dict[str, Any]]:
    """Sections as they are kept; their pictures are written."""
    stored = []
    for section in sections:
        pictures = {name: content for name, content in section.pictures.items() if content}
        for name, content in pictures.items():
            (run_dir / "plots").mkdir(exist_ok=True)
            storage.write_atomically(str(run_dir / "plots" / f"{name}.png"), content)
        if pictures or section.rows:
            shown = {"title": section.title, "pictures": list(pictures), "columns": list(section.columns), "rows": section.rows}
            stored.append(shown)
    return stored


def read_sections(run_dir: Path) -> list[dict[str, Any]]:
    """[{"title", "pictures", "columns", "rows"}] of a run, none where nothing was written."""
    path = run_dir / NAME
    return json_files.read(path, "Remove it: `omnia report` then leaves its sections out.", list) if path.is_file() else []
