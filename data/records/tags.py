"""Schemes of tags of entities: IOB2, and what is turned into it.

In IOB2 (Ratnaparkhi 1998; Tjong Kim Sang and Veenstra 1999) an entity of type X begins with B-X and goes on with I-X; O is outside of all.
IOB1 writes B-X only where an entity follows another one of its type at once. BIOES (also BIOLU, BMES) marks the end of an entity and those
of a single token. Their tags stand for the same entities, one for one, so that what is turned into IOB2 loses nothing.
"""

from collections.abc import Sequence

_SAME = {"B": "B", "I": "I", "M": "I", "E": "E", "L": "E", "S": "S", "U": "S"}
"""The letters of BIOES, and what BMES and BIOLU write for them."""
_OPEN = ("B", "I")
"""After these an entity of BIOES goes on."""


class BadTag(ValueError):
    """A tag that cannot stand where it does. place: its index."""

    def __init__(self, place: int, why: str):
        super().__init__(why)
        self.place = place


def split_tag(tag: str) -> tuple[str, str] | None:
    """(letter, type) of a tag, ("O", "") outside of entities; None where it has not this form."""
    if tag == "O":
        return "O", ""
    letter, dash, kind = tag.partition("-")
    return (letter, kind) if dash and kind and letter in _SAME else None


def scheme_of(sentences: Sequence[Sequence[str]]) -> str:
    """BIOES, IOB1 or IOB2, by the tags of a whole file. What follows none of them counts as IOB2, whose check then names the place."""
    letters = {split[0] for tags in sentences for tag in tags if (split := split_tag(tag))}
    if letters - set("BIO"):
        return "BIOES"
    inside = outside = False  # whether an entity that follows none of its type begins with I, or with B
    for tags in sentences:
        last = ""
        for tag in tags:
            letter, kind = split_tag(tag) or ("O", "")
            inside |= letter == "I" and kind != last
            outside |= letter == "B" and kind != last
            last = kind
    return "IOB1" if inside and not outside else "IOB2"


def to_iob2(tags: Sequence[str], scheme: str) -> list[str]:
    """The tags of a sentence in IOB2, for the same entities. BadTag where they do not follow their scheme."""
    found: list[str] = []
    last, kind_before = "O", ""
    for place, tag in enumerate(tags):
        split = split_tag(tag)
        if split is None:
            raise BadTag(place, f"{tag[:40]!r} is not a tag of an entity: B-TYPE, I-TYPE or O")
        letter, kind = split
        if scheme == "BIOES":
            letter = _SAME.get(letter, "O")
            goes_on = letter in ("I", "E")
            if (last in _OPEN) != goes_on or (goes_on and kind != kind_before):
                raise BadTag(place, f"{tag!r} after {tags[place - 1]!r}" if place else f"{tag!r} begins a sentence")
            found.append("O" if letter == "O" else f"{'I' if goes_on else 'B'}-{kind}")
        elif letter == "I" and kind != kind_before:
            if scheme == "IOB2":
                before = f"after {tags[place - 1]!r}" if place else "at the begin of a sentence"
                raise BadTag(place, f"{tag!r} {before}: an entity begins with B-{kind}")
            found.append(f"B-{kind}")
        else:
            found.append(tag)
        last, kind_before = letter, kind
    if scheme == "BIOES" and last in _OPEN:
        raise BadTag(len(tags) - 1, f"{tags[-1]!r} ends a sentence")
    return found
