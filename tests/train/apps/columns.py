"""What an application says of its columns, held against what it reads."""

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

from data.records.record import Record
from train.kinds import Application


@contextlib.contextmanager
def asked() -> Iterator[set[str]]:
    """The names that rows are asked for within, there or not."""
    names: set[str] = set()

    def noting(method: Any) -> Any:
        def ask(self: Record, name: str, *more: Any) -> Any:
            names.add(name)
            return method(self, name, *more)

        return ask

    with pytest.MonkeyPatch.context() as patch:
        for name in ("__getitem__", "__contains__", "get"):
            patch.setattr(Record, name, noting(getattr(dict, name)), raising=False)
        yield names


def check_columns(application: Application, *rows: dict[str, Any], dataset: Any) -> None:
    """Of rows that together ask for all that it reads, those of its columns and no others; and its example is answered.

    What is right is asked for also where it is only left out, and tells nothing then.
    """
    columns, row = application.columns, application.example
    assert all(column.meaning[0].isupper() and column.meaning.endswith(".") for column in columns.values())
    assert {*row} <= {*columns}
    for name, value in row.items():
        form = columns[name].form
        assert (isinstance(value, list), isinstance(value, dict)) == (form == "list", form == "object")
    with application.forgetting():
        assert not [line for line in application.answers([Record(row, "row 1")]) if "error" in line]
    with application.forgetting(), asked() as names:
        lines = application.answers([Record(row, f"row {number}") for number, row in enumerate(rows, 1)])
    assert not [line for line in lines if "error" in line]
    label = getattr(dataset.options, getattr(dataset, "label_option", ""), "")
    assert names - {"", label} == {*columns} - {label}
    assert dataset.talks == (type(application).reply is not Application.reply)
