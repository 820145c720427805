"""Rounds of our stream of media: shards, globally shuffled, decoded by two processes. Started by benchmarks/race.py."""

import dataclasses
import itertools
import json
import sys
import time
from pathlib import Path

import numpy as np

from data.loading.process_prefetch import ProcessPrefetch, shared_empty
from data.media.kinds import Part, Sample
from data.media.shards import MediaCorpus, write_media
from data.media.signals.images import decode_image
from data.media.signals.probing import probe
from data.media.signals.shapes import AudioShape
from data.media.signals.videos import decode_video
from data.media.source import cut
from data.rows.order import shuffled

KINDS = {"images": "image", "video": "video", "audio": "audio", "records": "text"}
SHAPE = AudioShape(times=500)


@dataclasses.dataclass
class Maker:
    """Batch n: the samples of rows n * size to (n + 1) * size of the shuffled stream."""

    folder: str
    kind: str
    size: int
    frames: int = 0  # of a clip; 0: all

    def __call__(self, number):
        if not hasattr(self, "split"):
            self.split = MediaCorpus(self.folder).split("train")
        split = self.split
        _, indices = shuffled(np.arange(number * self.size, (number + 1) * self.size), split.samples, 0)
        samples = split.read(indices)
        if self.kind == "records":
            return {"texts": [sample.parts[0].content for sample in samples]}
        if self.kind == "images":
            pixels = shared_empty((self.size, 320, 320, 3), np.uint8)
            for place, sample in enumerate(samples):
                decode_image(sample.parts[0].content, out=pixels[place])
            return {"pixels": pixels}
        if self.kind == "audio":
            facts = [split.facts(int(split.first_part[index])) for index in indices]
            grids = SHAPE.grids(np.array([known.samples / known.rate for known in facts]))
            patches = shared_empty((self.size, int(grids.max()), SHAPE.values), np.float32)
            for place, (sample, known) in enumerate(zip(samples, facts, strict=True)):
                found = cut(sample.parts[0].content, SHAPE, known, None).patches
                patches[place, : len(found)], patches[place, len(found) :] = found, 0
            return {"patches": patches}
        count = self.frames or int(split.frames[indices[0]])
        pixels = shared_empty((self.size, count, 240, 320, 3), np.uint8)
        for place, (index, sample) in enumerate(zip(indices, samples, strict=True)):
            step = split.frames[index] / split.rates[index] / count
            decode_video(sample.parts[0].content, (np.arange(count) + 0.5) * step, out=pixels[place])
        return {"pixels": pixels}


def prepare(options):
    folder = Path(options["folder"]) / "shards"
    pairs = []
    for path in sorted(Path(options["raw"]).iterdir()):
        content = path.read_bytes()
        kind = KINDS[options["kind"]]
        part = Part(kind, content.decode() if kind == "text" else content)
        pairs.append((Sample((part,), path.name), [probe(kind, part.content)]))
    write_media(str(folder), {"train": pairs}, shard_samples=-(-len(pairs) // 4))
    return str(folder)


def main():
    options = json.loads(sys.argv[1])
    maker = Maker(prepare(options), options["kind"], options["batch"], options.get("frames", 0))
    processes = options.get("processes", 2)
    batches = ProcessPrefetch(maker, 0, processes, 4) if processes else map(maker, itertools.count())
    next(batches)
    print("ready", flush=True)
    for _ in sys.stdin:
        for _ in range(options["warm"]):
            next(batches)
        began = time.perf_counter()
        for _ in range(options["batches"]):
            next(batches)
        seconds, made = time.perf_counter() - began, (options["warm"] + options["batches"]) * options["batch"]
        print(json.dumps({"seconds": seconds, "records": options["batches"] * options["batch"], "made": made}), flush=True)
    if isinstance(batches, ProcessPrefetch):
        batches.close()


if __name__ == "__main__":
    main()
