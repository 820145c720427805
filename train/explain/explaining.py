"""From a run and a text to an explanation."""

from typing import Any

import numpy as np

from data.errors import UserError
from train.explain.attribution import METHODS, completeness, faithfulness
from train.explain.subject import Subject, subject_of
from train.runs.classes import nearest
from train.runs.directory import Run

ADDING_UP = ("integrated_gradients", "shap", "partition")
"""Methods whose attributions add up to the number less that of the baseline."""


def explain(run: Run, prompt: str, method: str, *, samples: int = 512, seed: int = 0, lens: bool = False, **asked: Any) -> dict[str, Any]:
    """{"method", "answer", "against", "tokens", "attributions", "value", "baseline_value", "faithfulness", ...}: an attribution in nats for
    each token, 0 for those that mark beginnings and ends. asked: as of `subject_of`. Of methods that add up also "completeness_error".

    lens: also "lens", for each layer of a decoder {"layer", "answer", "likeliest"}: the probability of the answer if it were the last one,
    and the likeliest tokens with theirs."""
    method = method_named(method)
    subject = subject_of(run, prompt, **asked)
    if lens and subject.lens is None:
        raise UserError("--lens is for runs that continue texts: layers of a classifier have no answers of their own", "Leave it out.")
    found = explained(subject, method, samples, seed)
    return found | ({"lens": subject.lens()} if lens and subject.lens else {})


def method_named(method: str) -> str:
    """UserError where there is no such method."""
    if method not in METHODS:
        raise UserError(f"--method {method}: no such method{nearest(method, METHODS)}", f"Choose from {', '.join(METHODS)}.")
    return method


def explained(subject: Subject, method: str, samples: int = 512, seed: int = 0) -> dict[str, Any]:
    """The same of a subject."""
    found = METHODS[method](subject, samples=samples, seed=seed)
    value, none = subject.values([subject.free_T, np.zeros_like(subject.free_T)])
    result = {
        "method": method,
        "answer": subject.answer,
        "against": subject.against,
        "tokens": subject.texts,
        "attributions": found.tolist(),
        "value": float(value),
        "baseline_value": float(none),
        "faithfulness": {name: float(measure) for name, measure in faithfulness(subject, found, seed).items()},
    }
    return result | ({"completeness_error": completeness(subject, found)} if method in ADDING_UP else {})
