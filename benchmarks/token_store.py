"""How fast are tokens read? The layout of the token store against others, then whole batches.

python benchmarks/token_store.py [--tokens 100_000_000] [--rounds 3] [--layouts flat,array_record,tensorstore]

Random access: batches of 64 rows of 1,024 tokens that begin anywhere. Sequential: the same rows one after another. One thread asks;
files are in the page cache; the rounds are interleaved; the median is shown, with the range. `flat` verifies every block at its
first touch, within the first round; `flat, unverified` is the same memory map without the digests. ArrayRecord and TensorStore are
read by one call for a batch. Needs array_record and tensorstore for the layouts of their names.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time

import numpy as np

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from data.text.batches import Batches
from data.text.prepare import PrepareText, prepare_text

ROW, BATCH, BATCHES = 1024, 64, 100
RECORD = 8192  # tokens in a record of ArrayRecord, 16 KiB
CHUNK = 32768  # tokens in a chunk of TensorStore, 64 KiB: as our blocks


def make_corpus(folder, tokens):
    """Documents of random bytes, of log-normal lengths about 1,000, in two shards."""
    random = np.random.default_rng(0)
    texts = os.path.join(folder, "texts")
    os.makedirs(texts)
    letters = np.frombuffer(b"etaoin shrdlu cmfwyp\n", np.uint8)
    for i in range(2):
        with open(os.path.join(texts, f"{i}.jsonl"), "w") as file:
            written = 0
            while written < tokens / 2:
                text = random.choice(letters, int(np.exp(random.normal(6.5, 1))) + 1).tobytes().decode()
                file.write('{"text": "' + text.replace("\n", "\\n") + '"}\n')
                written += len(text)
    start = time.perf_counter()
    corpus = prepare_text(PrepareText(input=(texts,), output=os.path.join(folder, "corpus"), validation=0, shard_bytes=1 << 40))
    seconds = time.perf_counter() - start
    print(f"prepared by bytes: {corpus.split('train').raw_bytes / seconds / 1e6:.0f} MB/s")
    return corpus


def flat(corpus, folder):
    """Through the token store: addresses of rows in the first shard, as ranges of one address space."""
    files = corpus.split("train")._files
    lengths = np.full(BATCH, ROW)
    return lambda starts: files.read(starts, lengths)[0]


def flat_unverified(corpus, folder):
    ids = np.memmap(corpus.split("train")._files.paths[0], corpus.manifest["dtype"], "r")
    ids = np.frombuffer(ids, ids.dtype)
    return lambda starts: np.concatenate([ids[start : start + ROW] for start in starts.tolist()])


def array_record(corpus, folder):
    from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

    path = os.path.join(folder, "tokens.array_record")
    writer = ArrayRecordWriter(path, "group_size:1,uncompressed")
    ids = np.fromfile(corpus.split("train")._files.paths[0], corpus.manifest["dtype"])
    for start in range(0, len(ids), RECORD):
        writer.write(ids[start : start + RECORD].tobytes())
    writer.close()
    reader = ArrayRecordReader(path)

    def read(starts):
        first, last = starts // RECORD, (starts + ROW - 1) // RECORD
        wanted = np.unique(np.concatenate([first, last])).tolist()
        records = {i: np.frombuffer(record, ids.dtype) for i, record in zip(wanted, reader.read(wanted), strict=True)}
        parts = []
        for start in starts.tolist():
            record, inside = divmod(start, RECORD)
            parts.append(records[record][inside : inside + ROW])
            if len(parts[-1]) < ROW:
                parts.append(records[record + 1][: ROW - len(parts[-1])])
        return np.concatenate(parts)

    return read


def tensorstore(corpus, folder, codecs=({"name": "bytes"},)):
    import tensorstore as ts

    ids = np.fromfile(corpus.split("train")._files.paths[0], corpus.manifest["dtype"])
    store = ts.open(
        {
            "driver": "zarr3",
            "kvstore": {"driver": "file", "path": os.path.join(folder, f"zarr{len(codecs)}")},
            "metadata": {
                "shape": [len(ids)],
                "data_type": str(ids.dtype),
                "codecs": list(codecs),
                "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [CHUNK]}},
            },
            "create": True,
            "context": {"cache_pool": {"total_bytes_limit": 1 << 28}},
        }
    ).result()
    store.write(ids).result()

    def read(starts):
        futures = [store[start : start + ROW].read() for start in starts.tolist()]
        return np.concatenate([future.result() for future in futures])

    return read


LAYOUTS = {"flat": flat, "flat_unverified": flat_unverified, "array_record": array_record, "tensorstore": tensorstore}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=100_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--layouts", default=",".join(LAYOUTS))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        corpus = make_corpus(folder, options.tokens)
        length = corpus.manifest["splits"]["train"]["shards"][0]["tokens"]
        random = np.random.default_rng(1)
        starts = {
            "random": [random.integers(0, length - ROW, BATCH) for _ in range(BATCHES)],
            "sequential": [(np.arange(BATCH) + i * BATCH) * ROW % (length - ROW) for i in range(BATCHES)],
        }
        readers = {name: LAYOUTS[name](corpus, folder) for name in options.layouts.split(",")}
        expected = {order: flat_unverified(corpus, folder)(batches[0]) for order, batches in starts.items()}
        speeds = {}
        for _ in range(options.rounds):
            for name, read in readers.items():
                for order, batches in starts.items():
                    assert np.array_equal(read(batches[0]), expected[order])
                    begin = time.perf_counter()
                    for batch in batches:
                        read(batch)
                    speed = BATCHES * BATCH * ROW / (time.perf_counter() - begin) / 1e6
                    speeds.setdefault((name, order), []).append(speed)
        print(f"{'layout':<18}{'order':<12}{'million tokens/s':>18}   (range; first round)")
        for (name, order), values in speeds.items():
            print(f"{name:<18}{order:<12}{statistics.median(values):>18.1f}   ({min(values):.1f} to {max(values):.1f}; {values[0]:.1f})")
        for context_length in (256, 1024):
            begin = time.perf_counter()
            batches = Batches([corpus], context_length=context_length)
            planned = time.perf_counter() - begin
            values = []
            for i in range(options.rounds):
                begin = time.perf_counter()
                tokens = sum(float(batches.batch((i * BATCHES + j) * BATCH, BATCH).weights.sum()) for j in range(BATCHES))
                values.append(tokens / (time.perf_counter() - begin) / 1e6)
            print(
                f"batches of {BATCH} x {context_length}: {statistics.median(values):.1f} million tokens/s "
                f"({min(values):.1f} to {max(values):.1f}); plan {planned:.2f} s, padding {batches.padding_share:.3%}"
            )


if __name__ == "__main__":
    main()
