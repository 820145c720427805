"""How much of a planted secret a language model gives away: its exposure (Carlini et al. 2019)."""

import math
from typing import Any

import numpy as np

from data.errors import UserError
from train.checkpoints.checkpointer import load_parameters
from train.devices.mesh import inference_mesh
from train.evaluation.likelihood import Likelihoods, Request
from train.generation.text import decoder_of
from train.runs.directory import Run

HOLE = "#"
"""Stands for a random digit in the form of a secret."""
ENUMERATED = 10_000
"""Size of a space up to which every possible secret is ranked; of a larger one, so many are drawn."""
UNIFORM = 1 / math.log(2)
"""Bits of exposure, on average, of secrets that a model has not seen, in a large space: each rank is then equally likely, and the mean of
-log2(rank / |R|) is the integral of -log2 u over [0, 1]."""


def secrets(form: str, count: int, seed: int) -> list[str]:
    """Different secrets of a form, drawn at random. UserError where it has no `#`, or too few for as many."""
    digits, rng = _digits(form), np.random.default_rng(seed)
    if count > 10**digits // 2:
        raise UserError(f"{count} secrets of {10**digits} that are possible", "Give fewer, or a form with more digits.")
    found: dict[int, None] = {}
    while len(found) < count:
        found[int(rng.integers(10**digits))] = None
    return [filled(form, number) for number in found]


def _digits(form: str) -> int:
    digits = form.count(HOLE)
    if not 1 <= digits <= 15:
        raise UserError(f"--form {form!r} has {digits} times {HOLE}, each of which stands for a digit", "Give a form with 1 to 15.")
    return digits


def filled(form: str, number: int) -> str:
    """The form with the digits of a number, from the left."""
    digits = iter(f"{number:0{form.count(HOLE)}d}")
    return "".join(next(digits) if character == HOLE else character for character in form)


def exposures(planted, others, size: int) -> np.ndarray:
    """Bits, float64 [N]: log2 |R| - log2 rank (Carlini et al. 2019, definition 4), of log-probabilities of secrets.

    others: those of the rest of the space, which may hold the planted ones, or of a sample of it: then the rank is the share of the sample
    that is at least as likely, with the secret itself among them, times `size` (their section 4.3, without a fitted distribution, so no
    exposure is above log2 of the sample's size plus one).
    """
    planted, others = np.asarray(planted, np.float64), np.sort(np.asarray(others, np.float64))
    above = len(others) - np.searchsorted(others, planted, "right")
    if len(others) == size:
        return math.log2(size) - np.log2(1 + above)
    return -np.log2((1 + above) / (1 + len(others)))


def exposure_of(run: Run, form: str, planted: list[str], *, seed: int = 0) -> dict[str, Any]:
    """{"size", "ranked", "exact", "uniform", "mean", "most", "secrets": [{"secret", "exposure"}]}: bits. form: what the secrets have in
    common, `#` for each digit. UserError for runs that do not continue texts, and for secrets of another form."""
    digits, width = _digits(form), len(form)
    for secret in planted:
        fits = len(secret) == width and all(
            own.isascii() and own.isdigit() if held == HOLE else own == held for held, own in zip(form, secret, strict=True)
        )
        if not fits:
            raise UserError(f"{secret!r} is not of the form {form!r}", f"Each {HOLE} stands for one digit.")
    if not planted:
        raise UserError("no secrets to rank", "Give a file with one on each line.")
    size, rng = 10**digits, np.random.default_rng(seed)
    exact = size <= ENUMERATED
    numbers = np.arange(size) if exact else rng.integers(size, size=ENUMERATED)
    texts = [filled(form, int(number)) for number in numbers]
    tokenizer, mesh = run.tokenizer(), inference_mesh(run.experiment.mesh)
    model = decoder_of(run)
    start = [tokenizer.document_start]
    scorer = Likelihoods(model, load_parameters(run, mesh)[0], mesh)
    found = [one.log_prob for one in scorer([Request(start, tokenizer.encode(text).tolist()) for text in [*planted, *texts]])]
    bits = exposures(found[: len(planted)], found[len(planted) :], size)
    return {
        "size": size,
        "ranked": len(texts),
        "exact": exact,
        "uniform": UNIFORM,
        "mean": float(bits.mean()),
        "most": float(bits.max()),
        "secrets": [{"secret": secret, "exposure": float(one)} for secret, one in zip(planted, bits, strict=True)],
    }
