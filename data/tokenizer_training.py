"""Making a tokenizer from the documents of a corpus: its alphabet, or a SentencePiece model of a sample of it."""

import heapq
import io
import re

import xxhash

from data.anonymize.documents import anonymized
from data.anonymize.surrogates import Key
from data.errors import UserError
from data.readers.documents import Document, Extent, Skipped, SplitRule, between
from data.readers.inputs import read_documents
from data.tokenizer import Tokenizer, sentencepiece_tokenizer

SAMPLE_BYTES = 10_000_000
SAMPLE_TASKS = 64  # of a larger corpus, as many tasks in even distances are sampled
_BLOCK = 1 << 14  # characters of one document that are taken or left together
_INDENTS = ["\n" * lines for lines in (1, 2)] + ["\n" + " " * spaces for spaces in range(2, 33, 2)] + ["\t", "\n\t", "\n\t\t"]


def scan_alphabet(extents: list[Extent], text_field: str, key: Key | None, report) -> tuple[str, list[Skipped]]:
    """All characters of a task's documents, and what is damaged."""
    characters: set[str] = set()
    damaged = []
    for document in anonymized(read_documents(extents, text_field, report), key):
        if isinstance(document, Skipped):
            if document.kind == "damaged":
                damaged.append(document)
        else:
            for chunk in document.chunks():
                characters.update(chunk)
    return "".join(sorted(characters)), damaged


def scan_sample(
    extents: list[Extent], text_field: str, key: Key | None, rule: SplitRule, report
) -> tuple[list[tuple[int, str]], list[Skipped]]:
    """[(hash, text)]: of the training text in blocks, those with the smallest hashes, up to SAMPLE_BYTES; and what is damaged."""
    sample, damaged, added = [], [], 0
    for document in anonymized(read_documents(extents, text_field, report), key):
        if isinstance(document, Skipped):
            if document.kind == "damaged":
                damaged.append(document)
            continue
        for split, start, stop in rule.portions(document):
            if split == "train":
                sample += [(xxhash.xxh3_64_intdigest(block.encode()), block) for block in _blocks(document, start, stop)]
                added += stop - start
        if added > 2 * SAMPLE_BYTES:  # bounded memory
            sample, added = smallest(sample), 0
    return smallest(sample), damaged


def smallest(sample: list[tuple[int, str]]) -> list[tuple[int, str]]:
    """The blocks of smallest hash that hold SAMPLE_BYTES together: the same in whatever order and groups they came."""
    taken, left = [], SAMPLE_BYTES
    heap = list(set(sample))
    heapq.heapify(heap)
    while heap and left > 0:
        taken.append(heapq.heappop(heap))
        left -= len(taken[-1][1].encode())
    return taken


def train_sentencepiece(sample: list[tuple[int, str]], size: int) -> Tokenizer:
    """A lossless SentencePiece BPE model of `size` pieces: unknown characters by bytes, digits apart, indents whole.

    BPE counts integers, so that the model is the same on every machine; a unigram model, trained on floats, took four to ten
    times as long for the same bytes per token.
    """
    import sentencepiece

    lines = [line for _, block in sample for line in re.split(r"\n *|\t", block.replace("\u2581", "")) if line]
    if not lines:
        raise UserError(
            "the training documents are empty: no sentencepiece model can be made of them.", "Give more input, or use the byte tokenizer."
        )
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines),
            model_writer=model,
            model_type="bpe",
            vocab_size=size,
            num_threads=1,
            byte_fallback=True,
            character_coverage=0.9999,
            normalization_rule_name="identity",
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            allow_whitespace_only_pieces=True,
            split_digits=True,
            user_defined_symbols=_INDENTS,
            max_sentence_length=1 << 24,
            unk_id=0,
            bos_id=-1,
            eos_id=-1,
            pad_id=-1,
            minloglevel=2,
        )
    except (RuntimeError, OSError) as error:
        reason = str(error).rpartition("] ")[2].rstrip(".")  # after the place in the library's source
        raise UserError(
            f"no sentencepiece model of {size} pieces can be made of this text: {reason}.",
            "Ask for another number of pieces, or give more text.",
        ) from None
    return sentencepiece_tokenizer(model.getvalue(), by_line=True)


def _blocks(document: Document, start: int, stop: int):
    held = ""
    for chunk in between(document.chunks(), start, stop):
        held += chunk
        whole = len(held) // _BLOCK * _BLOCK
        yield from (held[i : i + _BLOCK] for i in range(0, whole, _BLOCK))
        held = held[whole:]
    if held:
        yield held
