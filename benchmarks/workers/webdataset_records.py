"""Rounds of WebDataset: tars, a shuffling buffer of 1,000 samples, two workers of its loader. Started by benchmarks/race.py."""

import json
import sys
import tarfile
import time
from pathlib import Path

import webdataset


def main():
    options = json.loads(sys.argv[1])
    folder, ending = Path(options["folder"]) / "tars", {"images": "jpg", "records": "txt"}[options["kind"]]
    folder.mkdir()
    paths = sorted(Path(options["raw"]).iterdir())
    for shard in range(4):
        with tarfile.open(folder / f"{shard}.tar", "w") as archive:
            for path in paths[shard::4]:
                archive.add(path, f"{path.name}.{ending}")
    data = webdataset.WebDataset([str(path) for path in sorted(folder.iterdir())], shardshuffle=4, empty_check=False).shuffle(1000)
    data = data.decode("rgb8") if options["kind"] == "images" else data.decode()
    data = data.to_tuple(ending).batched(options["batch"]).repeat()
    batches = iter(webdataset.WebLoader(data, batch_size=None, num_workers=2))
    next(batches)
    print("ready", flush=True)
    for _ in sys.stdin:
        records = 0
        for _ in range(options["warm"]):
            next(batches)
        began = time.perf_counter()
        for _ in range(options["batches"]):
            records += len(next(batches)[0])
        seconds, made = time.perf_counter() - began, (options["warm"] + options["batches"]) * options["batch"]
        print(json.dumps({"seconds": seconds, "records": records, "made": made}), flush=True)


if __name__ == "__main__":
    main()
