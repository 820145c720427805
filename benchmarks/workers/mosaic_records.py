"""Rounds of MosaicML's StreamingDataset: MDS shards here, its own shuffle, two workers of torch's loader. Started by benchmarks/race.py."""

import io
import json
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image
from streaming import MDSWriter, StreamingDataset
from torch.utils.data import DataLoader


class Pictures(StreamingDataset):
    def __getitem__(self, index):
        return np.asarray(Image.open(io.BytesIO(super().__getitem__(index)["content"])).convert("RGB"))


class Texts(StreamingDataset):
    def __getitem__(self, index):
        return super().__getitem__(index)["content"].decode()


def endless(loader):
    while True:
        yield from loader


def main():
    options = json.loads(sys.argv[1])
    folder = str(Path(options["folder"]) / "mds")
    with MDSWriter(out=folder, columns={"content": "bytes"}, size_limit=1 << 24) as writer:
        for path in sorted(Path(options["raw"]).iterdir()):
            writer.write({"content": path.read_bytes()})
    made = {"images": Pictures, "records": Texts}[options["kind"]]
    data = made(local=folder, shuffle=True, batch_size=options["batch"], num_canonical_nodes=1)
    batches = endless(DataLoader(data, batch_size=options["batch"], num_workers=2, persistent_workers=True))
    next(batches)
    print("ready", flush=True)
    for _ in sys.stdin:
        records = 0
        for _ in range(options["warm"]):
            next(batches)
        began = time.perf_counter()
        for _ in range(options["batches"]):
            records += len(next(batches))
        seconds, made = time.perf_counter() - began, (options["warm"] + options["batches"]) * options["batch"]
        print(json.dumps({"seconds": seconds, "records": records, "made": made}), flush=True)


if __name__ == "__main__":
    main()
