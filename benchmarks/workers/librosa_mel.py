"""A bare reader of recordings: files in memory, decoded and made into log-mel frames by librosa, and nothing else. Started by
benchmarks/race.py.

Two of these, each with its half of the files and one thread, are what two processes can do at most without a stream around them.
"""

import io
import json
import os
import sys
import time
from pathlib import Path


def main():
    options = json.loads(sys.argv[1])
    os.environ |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    import librosa
    import numpy as np

    def read(content):
        sound, rate = librosa.load(io.BytesIO(content), sr=16_000)
        power = librosa.feature.melspectrogram(y=sound, sr=rate, n_fft=400, hop_length=160, n_mels=80)
        logarithm = np.log10(np.maximum(power, 1e-10))
        return np.ascontiguousarray(((np.maximum(logarithm, logarithm.max() - 8.0) + 4.0) / 4.0).T, np.float32)

    paths = sorted(Path(options["raw"]).iterdir())[options["part"] :: 2]
    contents = [path.read_bytes() for path in paths]
    order = np.random.default_rng(0).permutation(len(contents))
    for number in order[:20]:
        read(contents[number])
    print("ready", flush=True)
    for _ in sys.stdin:
        began = time.perf_counter()
        for number in order:
            read(contents[number])
        print(json.dumps({"seconds": time.perf_counter() - began, "records": len(order), "made": len(order)}), flush=True)


if __name__ == "__main__":
    main()
