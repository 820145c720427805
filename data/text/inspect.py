"""What a prepared corpus holds: counts, lengths, decoded documents, and the rows of any step as the model will see them."""

import numpy as np

from data.text.batches import Batches
from data.text.shards import Corpus
from data.tokenizer import Tokenizer

_BAR = 40


def inspect_corpus(
    path: str,
    *,
    split: str = "train",
    context_length: int = 1024,
    samples: int = 2,
    first_row: int | None = None,
    batch_size: int = 4,
    seed: int = 0,
    fim_rate: float = 0.0,
) -> dict:
    """Statistics and samples of a corpus, as a dict of plain types for JSON. `print_inspection` prints it.

    samples: number of documents, evenly spaced. first_row: decode `batch_size` training rows from this one on, for `seed` and `fim_rate`.
    """
    corpus = Corpus(path)
    stored, tokenizer = corpus.split(split), corpus.tokenizer()
    batches = Batches([corpus], context_length=context_length, split=split, seed=seed, fim_rate=fim_rate)
    chosen = np.linspace(0, stored.documents - 1, min(samples, stored.documents)).astype(int)
    found = {
        "path": corpus.path,
        "digest": corpus.digest,
        "ids": corpus.ids,
        "document_end": corpus.document_end,
        "tokenizer": {"kind": tokenizer.kind, "size": tokenizer.size},
        "splits": {
            name: {key: one[key] for key in ("documents", "tokens", "raw_bytes")} | {"shards": len(one["shards"])}
            for name, one in corpus.manifest["splits"].items()
        },
        "empty": corpus.manifest["empty"]["count"],
        "ignored": corpus.manifest.get("ignored", {"count": 0})["count"],
        "damaged": len(corpus.manifest["damaged"]),
        "split": split,
        "bytes_per_token": stored.raw_bytes / stored.tokens,
        "context_length": context_length,
        "rows": batches.rows_per_epoch,
        "padding_share": batches.padding_share,
        "lengths": _histogram(stored.lengths),
        "documents": [
            {
                "document": int(i),
                "tokens": int(stored.lengths[i]),
                "text": tokenizer.decode(stored.read(i, 0, min(stored.lengths[i], 200)), specials=True),
            }
            for i in chosen
        ],
    }
    if first_row is not None:
        found["step_rows"] = decoded_rows(batches, tokenizer, first_row, batch_size)
    return found


def decoded_rows(batches: Batches, tokenizer: Tokenizer, first: int, count: int) -> list[dict]:
    """What rows of the order of training predict, decoded, segment by segment; of a mixture too."""
    batch = batches.batch(first, count)
    return [_row(batch, i, tokenizer) for i in range(count)]


def print_inspection(found: dict) -> None:
    """Prints what `inspect_corpus` found. Documents in a row are divided by a line each."""
    lines = [
        f"{found['path']}  ({found['tokenizer']['kind']} tokenizer, {found['ids']:,} ids in use, "
        + ("documents end with a token)" if found["document_end"] is not None else "no document ends)")
    ]
    for name, split in found["splits"].items():
        lines.append(
            f"  {name:<10} {split['documents']:>12,} documents {split['tokens']:>16,} tokens {split['raw_bytes']:>16,} bytes "
            f"{split['shards']:>6,} shards"
        )
    lines.append(
        f"  left out: {found['empty']:,} empty, {found['damaged']:,} damaged"
        + (f", {found['ignored']:,} no text" if found["ignored"] else "")
    )
    lines.append(
        f"{found['split']}: {found['bytes_per_token']:.3f} bytes per token; at context length {found['context_length']:,}: "
        f"{found['rows']:,} rows, {found['padding_share']:.2%} padding"
    )
    lines.append("document lengths in tokens:")
    most = max(one["documents"] for one in found["lengths"])
    for one in found["lengths"]:
        bar = "#" * -(-one["documents"] * _BAR // most)
        lines.append(f"  {one['from']:>12,} to {one['to']:<12,} {bar:<{_BAR}} {one['documents']:,}")
    for one in found["documents"]:
        lines += [f"--- document {one['document']:,}, {one['tokens']:,} tokens", one["text"]]
    for row in found.get("step_rows", []):
        lines.append(f"=== row {row['row']}: {row['targets']:,} targets")
        for segment in row["segments"]:
            lines += [f"--- segment {segment['segment']}, columns {segment['from']} to {segment['to']}", segment["text"]]
    print("\n".join(lines))


def _histogram(lengths):
    """Documents by length, in octaves."""
    octaves = np.bincount(np.frexp(lengths)[1])  # lengths in [2^(e-1), 2^e) have the exponent e
    return [{"from": 1 << e >> 1, "to": (1 << e) - 1, "documents": int(count)} for e, count in enumerate(octaves) if count]


def _row(batch, i, tokenizer):
    """What row i of a batch predicts, segment by segment."""
    segments = []
    for number in range(1, batch.segments[i].max() + 1):
        columns = np.flatnonzero(batch.segments[i] == number)
        if columns.size:  # a damaged segment has none
            segments.append(
                {
                    "segment": number,
                    "from": int(columns[0]),
                    "to": int(columns[-1]),
                    "text": tokenizer.decode(batch.targets[i, columns], specials=True),
                }
            )
    return {"row": int(batch.rows[i]), "targets": int(batch.weights[i].sum()), "segments": segments}
