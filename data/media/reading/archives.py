"""Tar archives in the manner of WebDataset: members of one key are one record."""

import os

from data.files.text_files import decode_text
from data.media.reading.fields import BESIDE, MEDIA, MEDIA_FIELDS, MOST_BYTES, Fields, kind_of
from data.media.reading.json_lines import parse_object
from data.readers import tar
from data.readers.documents import Skipped, invalid_utf8, printable


def read_groups(extent, reading, report):
    """Samples of a tar in the manner of WebDataset: members of one key."""
    for group in tar.read_groups(extent, (*MEDIA, *BESIDE, ".cls"), report, MOST_BYTES):
        if isinstance(group, Skipped):
            yield group
            continue
        key, told, media = group[0][0], Fields(reading), []
        try:
            for _, name, content in group:
                ending = os.path.splitext(name)[1].lower()
                if ending == ".json":
                    told.add_all(parse_object(content))
                elif ending in (".txt", ".cls"):
                    told.add("caption" if ending == ".txt" else "label", decode_text(content).strip(), name)
                else:
                    media.append({"kind": kind_of(name), "bytes": content})
        except UnicodeDecodeError as error:
            yield Skipped(name, invalid_utf8(error.start, error.object), "damaged")
            continue
        except ValueError as error:
            yield Skipped(name, str(error), "damaged")
            continue
        told.leave_out(*MEDIA_FIELDS, "parts")  # its media are in the archive
        told.fields["media"] = media
        yield told.record(f"{extent.path}: {printable(key.lstrip('/'))}", key.lstrip("/"), "", extent.path)
