"""Documents of a preparation, anonymised as they are read."""

from collections import Counter
from collections.abc import Iterable, Iterator

import xxhash

from data.anonymize.surrogates import Key
from data.anonymize.text import Anonymizer
from data.readers.documents import Document, Skipped, document_of

SHORT = 1 << 21
"""Characters of a document that is held in memory. Longer ones are read by chunks, once for their size and digest."""


def anonymized(
    documents: Iterable[Document | Skipped], key: Key | None, counts: Counter[str] | None = None
) -> Iterator[Document | Skipped]:
    """The documents without what patterns find, split by what is left; themselves where there is no key. counts: is told of what was
    replaced, by kind."""
    if key is None:
        yield from documents
        return
    for document in documents:
        if isinstance(document, Skipped):
            yield document
            continue
        anonymizer = Anonymizer(key)
        yield _short(document, anonymizer) if document.characters <= SHORT else _long(document, anonymizer)
        if counts is not None:
            counts.update(anonymizer.counts)


def _short(document: Document, anonymizer: Anonymizer) -> Document | Skipped:
    return document_of(document.name, anonymizer("".join(document.chunks())))


def _long(document: Document, anonymizer: Anonymizer) -> Document:
    characters, digest = 0, xxhash.xxh3_64()
    for chunk in _streamed(document, anonymizer):
        characters += len(chunk)
        digest.update(chunk.encode())
    return Document(document.name, lambda: _streamed(document, Anonymizer(anonymizer.key)), characters, digest.intdigest())


def _streamed(document: Document, anonymizer: Anonymizer) -> Iterator[str]:
    stream = anonymizer.stream()
    yield from filter(None, map(stream.feed, document.chunks()))
    if rest := stream.finish():
        yield rest
