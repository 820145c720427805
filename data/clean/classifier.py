"""A classifier of texts of the user's own: logistic regression on hashed n-grams, small and fast (Joulin et al. 2017; Weinberger 2009).

Features are one to three words, or characters of scripts without spaces, and two to four letters within words; counts are damped by their
logarithm, weighted by how few texts have them (TF-IDF), and each text has length 1. The loss is convex, so that the result depends on the
texts alone.
"""

import dataclasses
import io
import json
import zipfile
from collections.abc import Sequence

import numpy as np
import xxhash
from scipy.sparse import csr_array

from data.clean.units import codes_of, folded, hash_windows, mix, units_of, windows
from data.errors import UserError
from data.files import storage
from data.records.record import check_text, lacks
from data.records.rows import read_records

FORMAT = 1
BITS = 20
"""Features are hashed to 2^BITS places."""
WORDS, LETTERS = (1, 2, 3), (2, 3, 4)
STRENGTH = 10.0
"""Weight of the mean loss against half the squared weights, for each text."""


@dataclasses.dataclass(frozen=True)
class PrepareClassifier:
    """Train a classifier that `omnia prepare clean --classifier` removes documents by."""

    output: str
    """File to write, such as harmful.npz."""
    input: tuple[str, ...] = ()
    """Labelled texts: .csv, .tsv, .jsonl, .json or .parquet, gzipped or not."""
    positive: str = "1"
    """Label of the texts that are to be removed. All other labels stand for texts to keep."""
    text_field: str = "text"
    """Column or field that holds the text."""
    label_field: str = "label"
    """Column or field that holds the label."""
    held_out: float = 0.2
    """Fraction of the texts, chosen by a hash, that the classifier is measured on and not trained on, above 0 and below 1."""
    false_positive_rate: float = 0.01
    """Fraction of held-out texts to keep that may be taken for positive, 0 to 1. The threshold is the lowest that achieves it."""

    def __post_init__(self):
        if not 0 < self.held_out < 1 or not 0 <= self.false_positive_rate <= 1:
            raise UserError("held_out must be above 0 and below 1, false_positive_rate from 0 to 1.", "Correct the option.")


@dataclasses.dataclass(frozen=True)
class Classifier:
    """weights, frequency: float32 [2^BITS], of each place its weight and its inverse document frequency. about: measures and options."""

    weights: np.ndarray
    frequency: np.ndarray
    bias: float
    threshold: float
    about: dict

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """float64 [texts]: the probability that each is positive."""
        return _sigmoid(_weighted(features(texts), self.frequency) @ self.weights + self.bias)

    def save(self, path: str) -> None:
        header = {"format": FORMAT, "bias": self.bias, "threshold": self.threshold, **self.about}
        used = np.flatnonzero(self.weights)
        written = io.BytesIO()
        np.savez_compressed(
            written,
            header=np.frombuffer(json.dumps(header).encode(), np.uint8),
            places=used.astype(np.uint32),
            weights=self.weights[used],
            frequency=self.frequency[used],
        )
        storage.write_atomically(path, written.getvalue())


def load_classifier(path: str) -> Classifier:
    """The classifier of a file. UserError for what is none."""
    try:
        with np.load(path, allow_pickle=False) as file:
            header = json.loads(file["header"].tobytes())
            weights, frequency = np.zeros((2, 1 << BITS), np.float32)
            weights[file["places"]], frequency[file["places"]] = file["weights"], file["frequency"]
        if header.pop("format") != FORMAT:
            raise UserError(f"{path}: of another version", "Train the classifier again.")
        return Classifier(weights, frequency, header.pop("bias"), header.pop("threshold"), header)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or 'no classifier'}", "Name a file that `omnia prepare classifier` wrote.") from None
    except (ValueError, KeyError, IndexError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: no classifier ({error})", "Name a file that `omnia prepare classifier` wrote.") from None


def features(texts: Sequence[str]) -> csr_array:
    """float32 [texts, 2^BITS]: 1 + log of how often each feature occurs."""
    units = units_of(texts)
    parts = [_placed(*windows(units, size), salt=size) for size in WORDS]
    padded = [f" {' '.join(folded(text).split())} " for text in texts]
    codes, lengths = codes_of("".join(padded)).astype(np.uint64), np.array([len(text) for text in padded])
    ends = np.cumsum(lengths)
    for size in LETTERS:
        first = np.arange(len(codes))
        owner = np.repeat(np.arange(len(texts)), lengths)
        first = first[first + size <= ends[owner]]
        counts = np.maximum(lengths - size + 1, 0)
        parts.append(_placed(hash_windows(mix(codes + np.uint64(1)), first, size), counts, salt=100 + size))
    rows, places = (np.concatenate(column) for column in zip(*parts, strict=True))
    keys, counted = np.unique(rows << BITS | places, return_counts=True)
    return csr_array(((1 + np.log(counted)).astype(np.float32), (keys >> BITS, keys & ((1 << BITS) - 1))), shape=(len(texts), 1 << BITS))


def _placed(hashes, counts, salt):
    places = mix(hashes ^ np.uint64(salt)) >> np.uint64(64 - BITS)
    return np.repeat(np.arange(len(counts)), counts), places.astype(np.int64)


def _weighted(counts: csr_array, frequency: np.ndarray) -> csr_array:
    """TF-IDF, each row of length 1."""
    data = counts.data * frequency[counts.indices]
    rows = np.repeat(np.arange(counts.shape[0]), np.diff(counts.indptr))
    lengths = np.sqrt(np.bincount(rows, data**2, minlength=counts.shape[0]))
    return csr_array((data / np.maximum(lengths, 1e-12)[rows], counts.indices, counts.indptr), shape=counts.shape)


def train_classifier(texts: Sequence[str], positive: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """weights, frequency float32 [2^BITS] and the bias. positive: bool [texts]."""
    from scipy.optimize import minimize  # half a second, which who only reads classifiers need not wait

    counts = features(texts)
    documents = np.bincount(counts.indices, minlength=1 << BITS)
    frequency = np.where(documents > 0, np.log((1 + len(texts)) / (1 + documents)) + 1, 0).astype(np.float32)
    used = np.flatnonzero(documents)
    rows = _weighted(counts, frequency)[:, used].astype(np.float64)
    columns, signs = rows.T.tocsr(), np.where(positive, 1.0, -1.0)

    def loss(weights):
        margins = signs * (rows @ weights[:-1] + weights[-1])
        slopes = -signs * _sigmoid(-margins)
        gradient = np.append(weights[:-1] + STRENGTH * (columns @ slopes), STRENGTH * slopes.sum())
        return 0.5 * weights[:-1] @ weights[:-1] + STRENGTH * np.logaddexp(0, -margins).sum(), gradient

    found = minimize(loss, np.zeros(len(used) + 1), jac=True, method="L-BFGS-B", options={"maxiter": 200}).x
    weights = np.zeros(1 << BITS, np.float32)
    weights[used] = found[:-1]
    return weights, frequency, float(found[-1])


def prepare_classifier(options: PrepareClassifier) -> Classifier:
    """Trains a classifier, measures it on texts that it has not seen, and writes it. UserError for what the user can fix."""
    if not options.input:
        raise UserError("no input given.", "Name files with labelled texts after --input.")
    texts, labels = _labelled(options)
    positive = labels == options.positive
    fractions = np.array([xxhash.xxh3_64_intdigest(text.encode()) / 2**64 for text in texts])
    held = fractions < options.held_out  # equal texts fall on one side
    for side, which in ((held, "held out"), (~held, "for training")):
        for wanted, name in ((positive, f"labelled {options.positive!r}"), (~positive, "of another label")):
            if not (side & wanted).any():
                there = ", ".join(map(repr, sorted(set(labels.tolist()))[:5]))
                raise UserError(
                    f"{options.input[0]}: no text {name} is {which}; labels are {there}.", "Give more texts, or another --positive."
                )
    weights, frequency, bias = train_classifier([texts[place] for place in np.flatnonzero(~held)], positive[~held])
    trained = Classifier(weights, frequency, bias, 0.5, {})
    scores, truth = trained([texts[place] for place in np.flatnonzero(held)]), positive[held]
    threshold = lowest_threshold(scores[~truth], options.false_positive_rate)
    about = {
        "positive": options.positive,
        "trained_on": int((~held).sum()),
        "held_out": int(held.sum()),
        "held_out_positive": int(truth.sum()),
        "accuracy": float(((scores >= 0.5) == truth).mean()),
        "majority": float(max(truth.mean(), 1 - truth.mean())),
        "true_positive_rate": float((scores[truth] >= threshold).mean()),
        "false_positive_rate": float((scores[~truth] >= threshold).mean()),
    }
    made = dataclasses.replace(trained, threshold=threshold, about=about)
    made.save(options.output)
    print(
        f"{options.output}: trained on {about['trained_on']:,} texts; on {about['held_out']:,} others accuracy {about['accuracy']:.3f} "
        f"(always the commoner label: {about['majority']:.3f})\n"
        f"  threshold {threshold:.4f}: finds {about['true_positive_rate']:.1%} of {options.positive!r}, and takes "
        f"{about['false_positive_rate']:.2%} of the others for it"
    )
    return made


def lowest_threshold(negatives: np.ndarray, rate: float) -> float:
    """The lowest score of which at most a fraction `rate` of `negatives` is not below."""
    allowed = int(rate * len(negatives) + 1e-9)
    if allowed >= len(negatives):
        return 0.0
    return float(np.nextafter(np.sort(negatives)[::-1][allowed], np.inf))


def _labelled(options):
    texts, labels = [], []
    for path in options.input:
        for record in read_records(path):
            for field in (options.text_field, options.label_field):
                if record.get(field) is None:
                    raise lacks(record, field)
            texts.append(check_text(record[options.text_field], f"{record.where}: {options.text_field}"))
            labels.append(str(record[options.label_field]))
    return texts, np.array(labels)


def _sigmoid(values):
    return 0.5 * (1 + np.tanh(0.5 * np.asarray(values, np.float64)))
