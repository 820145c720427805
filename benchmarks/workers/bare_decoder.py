"""A bare decoder: files in memory, decoded one after the other by Pillow or PyAV, and nothing else. Started by benchmarks/race.py.

Two of these, each with its half of the files, are what two processes can decode at most without a stream around them.
"""

import io
import json
import sys
import time
from pathlib import Path

import av
import numpy as np
from PIL import Image


def image(content):
    with Image.open(io.BytesIO(content)) as file:
        return np.asarray(file.convert("RGB"))


def video(content):
    with av.open(io.BytesIO(content)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1  # the other core has a process of its own
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(stream)])


def main():
    options = json.loads(sys.argv[1])
    decode = {"images": image, "video": video}[options["kind"]]
    paths = sorted(Path(options["raw"]).iterdir())[options["part"] :: 2]
    contents = [path.read_bytes() for path in paths]
    order = np.random.default_rng(0).permutation(len(contents))
    decode(contents[0])
    print("ready", flush=True)
    for _ in sys.stdin:
        began = time.perf_counter()
        for number in order:
            decode(contents[number])
        print(json.dumps({"seconds": time.perf_counter() - began, "records": len(order), "made": len(order)}), flush=True)


if __name__ == "__main__":
    main()
