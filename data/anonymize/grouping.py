"""A table's report of who can be told apart, and the table made coarser until nobody can."""

import dataclasses
from typing import Any

from data.anonymize.groups import column_of, groups_of, report_of
from data.anonymize.mondrian import generalized, partition
from data.anonymize.tables import columns_of, with_columns
from data.errors import UserError


@dataclasses.dataclass(frozen=True)
class Grouping:
    """quasi_identifiers: columns that others may know of a person. sensitive: columns that they must not learn. k: rows that are to be the
    same in the first; 0: the table stays, and is reported on alone."""

    quasi_identifiers: tuple[str, ...]
    sensitive: tuple[str, ...] = ()
    k: int = 0

    def __post_init__(self):
        both = [*self.quasi_identifiers, *self.sensitive]
        if not self.quasi_identifiers:
            raise UserError("--sensitive and --k need --quasi-identifiers", "Name the columns that others may know of a person.")
        if len(set(both)) < len(both):
            twice = next(name for name in both if both.count(name) > 1)
            raise UserError(f"the column {twice} is named twice", "A column is a quasi-identifier or sensitive, and named once.")
        if self.k < 0 or self.k == 1:
            raise UserError(f"--k {self.k}: rows that are to be the same", "Give 2 or more, or 0 for a report alone.")

    def __call__(self, content: str, suffix: str) -> tuple[str, dict[str, Any]]:
        """(the table, its report). With k the report is of the coarser table, and has that of what was given as "before", and what it costs
        as "loss". A table that has k already stays as it is. UserError or ValueError for a table that cannot be read so."""
        names, count = [*self.quasi_identifiers, *self.sensitive], len(self.quasi_identifiers)
        columns = [column_of(name, cells) for name, cells in zip(names, columns_of(content, suffix, names), strict=True)]
        known, sensitive = columns[:count], columns[count:]
        if not len(known[0].codes):
            raise UserError("has no rows")
        before = report_of(groups_of(known), sensitive)
        if before["k"] >= self.k:
            return content, before
        if before["rows"] < self.k:
            raise UserError(f"has {before['rows']} rows, of which {self.k} cannot be the same")
        cells, loss = generalized(known, partition(known, self.k))
        made = [column_of(name, own) for name, own in zip(self.quasi_identifiers, cells, strict=True)]
        after = report_of(groups_of(made), sensitive)
        assert after["k"] >= self.k
        return with_columns(content, suffix, self.quasi_identifiers, cells), {**after, "loss": loss, "before": before}


def told(report: dict[str, Any]) -> list[str]:
    """What a report says, in lines."""
    lines = [f"k = {report['k']}: {report['rows']:,} rows in {report['groups']:,} groups, {report['rows_alone']:,} rows alone in theirs"]
    for name, found in report["sensitive"].items():
        lines.append(f"{name}: l = {found['l']}, by entropy {found['entropy_l']:.2f}; t = {found['t']:.3f}")
    if "loss" in report:
        lines += [f"before: {line}" for line in told(report["before"])]
        lines.append(f"certainty penalty {report['loss']['certainty_penalty']:.3f}, {report['loss']['average_group']:.1f} rows in a group")
    return lines
