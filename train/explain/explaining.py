"""From a run and a text to an explanation."""

from typing import Any

import numpy as np

from data.errors import UserError
from train.explain.attribution import METHODS, completeness, faithfulness
from train.explain.sanity import sanity_check as check_sanity
from train.explain.subject import Subject, subject_of
from train.runs.classes import nearest
from train.runs.directory import Run

ADDING_UP = ("integrated_gradients", "shap", "partition")
"""Methods whose attributions add up to the number less that of the baseline."""
SHARES = ("rollout",)
"""Methods that give shares: only the order of those can be compared with what the number does."""


def explain(
    run: Run,
    prompt: str,
    method: str,
    *,
    samples: int = 512,
    seed: int = 0,
    sanity_check: bool = False,
    lens: bool = False,
    **asked: Any,
) -> dict[str, Any]:
    """What `explained` gives of a text. asked: as of `subject_of`.

    lens: also "lens", for each layer of a decoder {"layer", "answer", "likeliest"}: the probability of the answer if it were the last one,
    and the likeliest tokens with theirs.
    """
    method = method_named(method)
    subject = subject_of(run, prompt, **asked)
    if lens and subject.lens is None:
        raise UserError("--lens is for decoders: layers of other models have no answers of their own", "Leave it out.")
    found = explained(subject, method, samples, seed, sanity_check)
    return found | ({"lens": subject.lens()} if lens and subject.lens else {})


def method_named(method: str) -> str:
    """UserError where there is no such method."""
    if method not in METHODS:
        raise UserError(f"--method {method}: no such method{nearest(method, METHODS)}", f"Choose from {', '.join(METHODS)}.")
    return method


def explained(subject: Subject, method: str, samples: int = 512, seed: int = 0, sanity_check: bool = False) -> dict[str, Any]:
    """{"method", "answer", "against", "tokens", "attributions", "value", "baseline_value", "faithfulness"}: an attribution in nats for each
    token, 0 for those that mark beginnings and ends; "faithfulness" as of `faithfulness`.

    Also, of methods that add up "completeness_error"; of methods that draw "standard_errors", for each token, and "stability":
    {"standard_error": the root of the mean of their squares, "relative": the same by that of the attributions}; with sanity_check
    "sanity_check", as of `sanity_check`.
    """

    def values(subject: Subject) -> np.ndarray:
        return METHODS[method](subject, samples=samples, seed=seed).values_T

    found_T, errors_T = METHODS[method](subject, samples=samples, seed=seed)
    value, none = subject.values([subject.free_T, np.zeros_like(subject.free_T)])
    faithful = faithfulness(subject, found_T, seed)
    result = {
        "method": method,
        "answer": subject.answer,
        "against": subject.against,
        "tokens": subject.texts,
        "attributions": found_T.tolist(),
        "value": float(value),
        "baseline_value": float(none),
        "faithfulness": {name: one for name, one in faithful.items() if method not in SHARES or "infidelity" not in name},
    }
    if method in ADDING_UP:
        result["completeness_error"] = completeness(subject, found_T)
    if errors_T is not None:
        error, size = (float(np.sqrt(np.square(one[subject.free_T]).mean())) for one in (errors_T, found_T))
        result |= {"standard_errors": errors_T.tolist(), "stability": {"standard_error": error, "relative": error / max(size, 1e-12)}}
    if sanity_check:
        result["sanity_check"] = check_sanity(subject, found_T, values, seed)
    return result
