"""Whether a speaker is still known from recordings in another voice, and whether the words are.

python benchmarks/anonymize_voices.py FSDD.tar.gz [SEED]
FSDD: the Free Spoken Digit Dataset, files DIGIT_SPEAKER_NUMBER.wav, of which numbers 0 to 4 are for testing.
"""

import io
import sys
import tarfile
import time

import numpy as np
import soundfile
import soxr
from scipy.fft import dct
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from data.anonymize.surrogates import Key
from data.anonymize.voices import disguise
from data.media.signals.mel import RATE, log_mel

STEPS = 20
"""Pieces of equal length in which a digit is recognised."""


def cepstra(content: bytes) -> np.ndarray:
    """Mel-frequency cepstral coefficients [S, 20], every 10 ms."""
    samples, rate = soundfile.read(io.BytesIO(content), dtype="float32")
    return dct(log_mel(soxr.resample(samples, rate, RATE)), norm="ortho")[:, :20]


def of_speaker(content: bytes) -> np.ndarray:
    values = cepstra(content)
    return np.concatenate([values.mean(0), values.std(0), np.diff(values, axis=0).std(0)])


def of_digit(content: bytes) -> np.ndarray:
    values = cepstra(content)
    places = np.linspace(0, len(values) - 1, STEPS).round().astype(int)
    values = values[places, 1:14] - values[:, 1:14].mean(0)
    return values.ravel()


def accuracy(train: list, test: list, features: dict, answer: int) -> float:
    """answer: which part of a name is to be found."""
    model = SVC(C=10.0) if answer == 0 else LogisticRegression(max_iter=2000)
    fitted = make_pipeline(StandardScaler(), model).fit([features[name] for name in train], [name.split("_")[answer] for name in train])
    return float(fitted.score([features[name] for name in test], [name.split("_")[answer] for name in test]))


def main() -> None:
    original = {}
    with tarfile.open(sys.argv[1]) as archive:
        for member in archive:
            if member.name.endswith(".wav"):
                file = archive.extractfile(member)
                assert file is not None
                original[member.name.rsplit("/", 1)[-1][:-4]] = file.read()
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    test = [name for name in original if int(name.split("_")[2]) < 5]
    train = [name for name in original if int(name.split("_")[2]) >= 5]
    began = time.process_time()
    sets = {"original": original}
    for what in ("anonymised", "by another key"):
        key = Key(f"{what}, seed {seed} of a benchmark".encode())
        sets[what] = {name: disguise(content, "WAV", key, name)[0] for name, content in original.items()}
    seconds = 2 * sum(len(soundfile.read(io.BytesIO(content))[0]) for content in original.values()) / 8000
    print(f"{seconds:.0f} s of sound anonymised in {time.process_time() - began:.0f} s of one core")
    print(f"{len(train)} to learn from, {len(test)} for testing")
    for answer, what, features in ((1, "speaker", of_speaker), (0, "digit", of_digit)):
        made = {where: {name: features(content) for name, content in contents.items()} for where, contents in sets.items()}
        print(f"{what} (chance {1 / len({name.split('_')[answer] for name in original}):.2f})")
        pairs = (("original", "original"), ("original", "anonymised"), ("by another key", "anonymised"), ("anonymised", "anonymised"))
        for learned, tested in pairs:
            both = {name: made[learned][name] for name in train} | {name: made[tested][name] for name in test}
            print(f"  learned from {learned}, tested on {tested}: {accuracy(train, test, both, answer):.3f}", flush=True)


if __name__ == "__main__":
    main()
