"""Sentences of tokens with tags of entities: CoNLL's columns, or JSON lines."""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from data.errors import UserError
from data.files.text_files import split_lines
from data.readers.stream import plain_name
from data.records.record import LeftOut, Record, bad_row, check_text, lacks, read_text
from data.records.rows import read_records
from data.records.tags import BadTag, scheme_of, split_tag, to_iob2

_COLUMNS = "Write a token and its tag on each line, between a tab or spaces, and an empty line after each sentence."
_NESTED = "Tags give a token one entity: leave the inner ones out, or train one model for each layer."


class Sentence(NamedTuple):
    """tokens; tags: theirs, in IOB2; where: the place of each in the file, as an error names it."""

    tokens: list[str]
    tags: list[str]
    where: list[str]


def read_sentences(path: str, *, words: str = "", tags: str = "", left_out: LeftOut | None = None) -> list[Sentence]:
    """The sentences of a file, gzipped or not.

    Columns, as those of CoNLL: a token a line, columns between tabs, or spaces where the file has no tab, and an empty line between
    sentences. Left out are lines of -DOCSTART- and comments. words, tags: their columns, counted from 0, or from the end below 0; by
    default the first, and the last. A .jsonl, .json or .parquet: records with lists of words and tags, by default tokens and tags, or with
    text and entities, [[start, end, type], ...] in characters, the end not included; tokens are then what white space separates.

    Tags are those of IOB2. A file in IOB1 or BIOES is turned into it, which is exact; entities within others are refused. UserError with
    file and line; with `left_out`, sentences that cannot be used are left out and counted there by their reasons.
    """
    if plain_name(path).endswith((".jsonl", ".json", ".ndjson", ".parquet")):
        fields = words or "tokens", tags or "tags"
        read = [one for record in read_records(path, left_out=left_out) if (one := _sentence(record, fields, left_out))]
    else:
        read = _columns(path, _number(path, words, 0), _number(path, tags, None), left_out)
    scheme = scheme_of([sentence.tags for sentence in read])
    sentences = []
    for sentence in read:
        try:
            sentences.append(sentence._replace(tags=to_iob2(sentence.tags, scheme)))
        except BadTag as error:
            mend = f"The tags of this file are read as {scheme}. Correct the tag, or turn the file into IOB2: B-TYPE, I-TYPE and O."
            bad_row(sentence.where[error.place], str(error), mend, left_out)
    if not sentences:
        raise UserError(f"{path}: holds no sentences that can be used", _COLUMNS)
    return sentences


# ------------------------------------------------------------------------------------------------------------------ columns


def _number(path: str, column: str, usual: Any) -> Any:
    """The number of a column; UserError for a name."""
    if not column:
        return usual
    if not re.fullmatch(r"-?\d+", column):
        raise UserError(f"{path}: has columns without names, and {column!r} is no number of one", "Give its number, counted from 0.")
    return int(column)


def _columns(path: str, token_column: int, tag_column: int | None, left_out: LeftOut | None) -> list[Sentence]:
    text = read_text(path)
    separator = re.compile("\t" if "\t" in text else "[ \t]+")
    width, tag = 0, -1 if tag_column is None else tag_column
    blocks: list[list[tuple[list[str], str]]] = []
    for block in _blocks(path, text):
        rows = [(separator.split(line), where) for line, where in block]
        while rows and _is_comment(*rows[0], width, tag):
            rows.pop(0)
        if not rows:
            continue
        width = width or len(rows[0][0])
        if not -width <= token_column < width or not -width <= tag < width or token_column % width == tag % width:
            raise UserError(f"{rows[0][1]}: {width} columns, of which a token and a tag are to be {token_column} and {tag}", _COLUMNS)
        wrong = next(((f"{len(row)} columns, where others have {width}", where) for row, where in rows if len(row) != width), None)
        wrong = wrong or next((("an empty token", where) for row, where in rows if not row[token_column]), None)
        if wrong:
            bad_row(wrong[1], wrong[0], _COLUMNS, left_out)
        else:
            blocks.append(rows)
    if token_column == 0 and len(blocks) > 1 and all(row[0] == str(n) for rows in blocks for n, (row, _) in enumerate(rows, 1)):
        raise UserError(
            f"{blocks[0][0][1]}: the first column counts the words of each sentence", "Name the column of words: --data.words 1."
        )
    if tag_column is None and width > 2:
        _check_layers([row for rows in blocks for row in rows], token_column % width)
    return [
        Sentence([row[token_column] for row, _ in rows], [row[tag] for row, _ in rows], [where for _, where in rows]) for rows in blocks
    ]


def _blocks(path: str, text: str) -> Iterator[list[tuple[str, str]]]:
    """The lines of each sentence, and their places."""
    block: list[tuple[str, str]] = []
    for number, line in enumerate(split_lines(text), 1):
        line = line.rstrip(" \t\r") if "\t" not in line else line.rstrip("\r\t")
        if line.strip(" \t") and not line.startswith("-DOCSTART-"):
            block.append((line, f"{path}: line {number}"))
        elif block:
            yield block
            block = []
    if block:
        yield block


def _is_comment(row: list[str], where: str, width: int, tag: int) -> bool:
    """Whether a line before a sentence is one of its comments, as in CoNLL-U: a token # has a tag."""
    if not re.match("#( |$)", row[0]):
        return False
    return len(row) < 2 or (bool(width) and len(row) != width) or not -len(row) <= tag < len(row) or split_tag(row[tag]) is None


def _check_layers(rows: list[tuple[list[str], str]], token_column: int) -> None:
    """UserError for a second column of tags of the same types: entities within others."""
    last = {row[-1] for row, _ in rows}
    types = {split[1] for tag in last if (split := split_tag(tag))} - {""}
    for column in range(len(rows[0][0]) - 1 if rows else 0):
        if column == token_column:
            continue
        splits = [split_tag(tag) for tag in {row[column] for row, _ in rows}]
        differs = next((where for row, where in rows if row[column] != row[-1]), None)
        if differs and all(splits) and types & {split[1] for split in splits if split}:
            raise UserError(
                f"{differs}: nested entities: column {column} and the last one hold tags of the same types, and differ", _NESTED
            )


# --------------------------------------------------------------------------------------------------------------------- JSON


def _sentence(record: Record, fields: tuple[str, str], left_out: LeftOut | None) -> Sentence | None:
    """fields: of the words, and of the tags."""
    try:
        if "entities" in record and fields[1] not in record:
            tokens, tags = _of_entities(record)
        else:
            for name in fields:
                if record.get(name) is None:
                    raise lacks(record, name)
            tokens, tags = (_texts(record[name], f"{record.where}: {name}") for name in fields)
        if not tokens or len(tokens) != len(tags):
            raise UserError(f"{record.where}: {len(tokens)} tokens and {len(tags)} tags", "Give each token one tag.")
    except UserError as error:
        if left_out is None:
            raise
        left_out[str(error).partition("\n")[0].removeprefix(f"{record.where}: ")] += 1
        return None
    return Sentence(tokens, tags, [f"{record.where}: token {number}" for number in range(1, len(tokens) + 1)])


def _texts(values: Any, what: str) -> list[str]:
    if not isinstance(values, list):
        raise UserError(f"{what} are no list", "Give a list of texts.")
    return [check_text(value, f"{what}: {number}") for number, value in enumerate(values, 1)]


def _of_entities(record: Record) -> tuple[list[str], list[str]]:
    """Tokens and tags of a text with entities by characters."""
    if record.get("text") is None:
        raise lacks(record, "text")
    text, entities = check_text(record["text"], f"{record.where}: text"), record["entities"]
    form = "Give [[start, end, type], ...], which count characters from 0."
    if not isinstance(entities, list) or not all(isinstance(one, list) and len(one) == 3 and isinstance(one[2], str) for one in entities):
        raise UserError(f"{record.where}: entities are no list of [start, end, type]", form)
    if not all(type(place) is int for start, end, _ in entities for place in (start, end)):
        raise UserError(f"{record.where}: entities have starts or ends that are no whole numbers", form)
    pieces = list(re.finditer(r"\S+", text))
    tags = ["O"] * len(pieces)
    starts, ends = ({getattr(piece, side)(): number for number, piece in enumerate(pieces)} for side in ("start", "end"))
    for start, end, kind in sorted(entities, key=lambda one: one[:2]):
        if start not in starts or end not in ends or not start < end:
            raise UserError(f"{record.where}: the entity {[start, end, kind]} does not begin and end where tokens do", form)
        inside = range(starts[start], ends[end] + 1)
        if any(tags[number] != "O" for number in inside):
            raise UserError(f"{record.where}: nested entities: {[start, end, kind]} overlaps another", _NESTED)
        for number in inside:
            tags[number] = f"{'B' if number == inside.start else 'I'}-{kind}"
    return [piece.group() for piece in pieces], tags
