"""Tar archives in the manner of WebDataset, read as a stream: nothing is extracted, and no name in them is ever a path of ours.

Members that stand together and share a key (the name up to the first dot of its last component) are one sample. Its text is the member
KEY.txt or, if there is none, a field of KEY.json. All other members, links among them, are ignored, and counted; hidden ones as in folders.
"""

import tarfile

from data.readers.documents import Extent, Skipped, Unreadable, document_of, printable
from data.readers.stream import Stream
from data.readers.text import document_of_json


def read_samples(extent: Extent, text_field: str, report):
    """The documents of an archive, which is never divided: it has no index."""
    for group in read_groups(extent, (".txt", ".json"), report):
        if isinstance(group, Skipped):
            yield group
        else:
            yield from _documents(group, text_field)


def read_groups(extent: Extent, endings: tuple[str, ...], report, most: int = 1 << 62):
    """The members of each sample that have one of the endings, [(key, name, content)]; and Skipped for all others.

    most: bytes of a member, above which it is not read.
    """
    held: list[tuple[str, str, bytes]] = []  # of the sample in hand
    try:
        with Stream(extent.path, report) as stream, tarfile.open(fileobj=stream, mode="r|", tarinfo=_Member) as archive:
            for member in archive:
                if member.isdir() or _is_hidden(member.name):
                    continue
                name, key = f"{extent.path}: {printable(member.name)}", _key(member.name)
                if held and held[0][0] != key:
                    yield held
                    held = []
                if not member.isreg():
                    what = f"a link to {printable(member.linkname)}" if member.linkname else "no file"
                    yield Skipped(name, f"{what}: links in archives are not followed", "ignored")
                elif not member.name.lower().endswith(endings):
                    yield Skipped(name, f"no {' or '.join(endings[:2])}", "ignored")
                elif member.size > most:
                    yield Skipped(name, f"too large: {member.size:,} bytes", "damaged")
                else:
                    held.append((key, name, _content(archive, member)))
            for _ in stream.chunks():  # the padding after the end, for the progress
                pass
    except (Unreadable, tarfile.TarError) as error:
        if held:
            yield held
        yield Skipped(extent.path, f"the rest cannot be read ({error})", "damaged")
    else:
        if held:
            yield held


def _documents(members, text_field):
    """The texts of one sample. The .json beside a .txt describes it."""
    has_text = any(name.lower().endswith(".txt") for _, name, _ in members)
    for _, name, content in members:
        if name.lower().endswith(".txt"):
            yield document_of(name, content)
        elif has_text:
            yield Skipped(name, "beside a .txt", "ignored")
        else:
            yield document_of_json(name, content, text_field)


def _is_hidden(name: str) -> bool:
    """Names that begin with a dot, such as the `._x` that a Mac puts beside each x, are left out, as in folders."""
    return any(component.startswith(".") and component not in (".", "..") for component in name.split("/"))


def _key(name):
    folder, _, last = name.rpartition("/")
    return f"{folder}/{last.partition('.')[0]}"


def _content(archive, member):
    file = archive.extractfile(member)
    assert file is not None
    content = file.read()
    if len(content) != member.size:
        raise Unreadable("the archive ends within a member")
    return content


class _Member(tarfile.TarInfo):
    """tarfile takes a damaged header after the first for the end of the archive; here it is an error."""

    @classmethod
    def fromtarfile(cls, archive):
        try:
            return super().fromtarfile(archive)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            raise Unreadable(f"no member begins at byte {archive.offset}: {error}") from None
