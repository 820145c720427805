"""What a log of one way of showing pages tells of another: estimates by inverse propensity beside the truth, which is known here.

omnia reproduce off_policy --data DIR
"""

import json
import sys
from typing import Any

import numpy as np

from train.reproduce.files import PublicFile, rows_of
from train.reproduce.table import Better, Metric, Row, Table

FILES = (
    PublicFile("visits", "applications/msweb/train.jsonl", "f8a151256ce91ddc84a7be43f4b934185032dce13268681e94d93095da4d1421"),
    PublicFile("visitors", "applications/msweb/test.jsonl", "4260fade33fe8e8e9eb41e5a4ad9d9d44ebd5c22972c258690151697fa36e0d0"),
)
"""Visits to areas of a web site in a week (Breese et al. 1998)."""
PLACES, LOOKED_AT = 5, 0.7
"""Places of a slate, and the share of who looks at a place that look at the next one."""
LOGS = 40
"""Logs of each size."""
SIZES = (1_000, 10_000)
LOGGED, POPULAR, PENALTY = 0.5, 1.5, 100.0
"""The logging policy shows a page by its visits to this power, the popular one by this; EASE's penalty."""
SHARP = 12.0
"""What EASE's scores are multiplied by before the softmax."""


def get_table() -> Table:
    policies = {"ease": "EASE, drawn", "popular": "popularity, drawn", "best": "EASE, the best five in order"}
    return Table(
        title="What a log tells of another policy",
        paper="Swaminathan and Joachims 2015 (normalised); Li et al. 2018, sec. 4.2 (item-position model); Ionides 2008 (clipped)",
        claim="Ten thousand slates that were shown by chance tell within a tenth what another policy would earn, with intervals that hold "
        "as often as they say, and a thousand which of two earns more.",
        metrics=(
            Metric("error", "error of plain weights", "share of the value", digits=3),
            Metric("normalised", "of normalised ones", digits=3),
            Metric("clipped", "of clipped ones", digits=3),
            Metric("covered", "intervals that hold", "share", lower_is_better=False),
            Metric("order", "logs that tell that it earns more than the logging policy", "share", lower_is_better=False),
            Metric("effective", "showings that count", digits=0),
            Metric("value", "clicks of a slate", digits=3),
        ),
        files=FILES,
        rows=tuple(
            Row(f"{name}_{size}", f"{what}: {size:,} slates", (f"python {{table}} {name} {size} {{seed}} {{visits}} {{visitors}}",))
            for name, what in policies.items()
            for size in SIZES
        ),
        claims=(
            *(Better(f"{name}_{SIZES[1]}", f"{name}_{SIZES[0]}") for name in policies),
            *(Better(f"{name}_{SIZES[1]}", 0.1) for name in policies),
            Better(f"ease_{SIZES[1]}", 0.9, metric="intervals that hold"),
            Better(f"ease_{SIZES[0]}", 0.95, metric="logs that tell that it earns more than the logging policy"),
        ),
        note="Visitors are those of the test part; one page that each did visit is what is clicked, if it is shown and looked at: the "
        f"first place always, each other one in {LOOKED_AT:.0%} of as many cases as the one before. A page of each of {PLACES} "
        f"places is drawn by itself, among those that the visitor has not seen. {LOGS} logs of each size. The error is the root of the "
        "mean square of that of an estimate, over the value; intervals are of plain weights, of 95 %. A log tells an order if its interval "
        "lies above the logging policy's mean click.",
    )


def softmax(scores_NI: Any) -> Any:
    weights_NI = np.exp(scores_NI - scores_NI.max(1, keepdims=True))
    return weights_NI / weights_NI.sum(1, keepdims=True)


def policies(visits: str, visitors: str) -> tuple[Any, dict[str, Any], Any]:
    """(clicked page of each visitor, [N]; of each policy the probabilities of pages at each place, [K, N, I]; whether a place is looked
    at, [K])."""
    from scipy import sparse

    from train.apps.recommending.ranker import Ease

    learned = [row["items"] for row in rows_of(visits)]
    number = {page: place for place, page in enumerate(dict.fromkeys(page for pages in learned for page in pages))}
    tested = [row for row in rows_of(visitors) if row["target"] in number]

    def seen(rows: list[list[int]]) -> Any:
        ends = np.cumsum([0, *map(len, rows)])
        return sparse.csr_array((np.ones(ends[-1], np.float32), np.concatenate(rows), ends), shape=(len(rows), len(number)))

    had_NI = seen([[number[page] for page in row["history"] if page in number] for row in tested])
    target_N = np.array([number[row["target"]] for row in tested])
    x_UI = seen([[number[page] for page in pages] for pages in learned])
    closed_NI = had_NI.toarray() > 0
    popular_I = np.log1p(x_UI.sum(0))
    ease_NI = np.where(closed_NI, -np.inf, SHARP * Ease(x_UI, PENALTY)(had_NI))
    order_NK = np.argsort(-ease_NI, axis=1, kind="stable")[:, :PLACES]
    best_KNI = np.zeros((PLACES, *closed_NI.shape))
    for place in range(PLACES):
        best_KNI[place, np.arange(len(target_N)), order_NK[:, place]] = 1
    alike = {
        "logging": softmax(np.where(closed_NI, -np.inf, LOGGED * popular_I)),
        "popular": softmax(np.where(closed_NI, -np.inf, POPULAR * popular_I)),
        "ease": softmax(ease_NI),
    }
    found = {name: np.broadcast_to(one_NI, best_KNI.shape) for name, one_NI in alike.items()}
    return target_N, found | {"best": best_KNI}, LOOKED_AT ** np.arange(PLACES)


def measured(name: str, size: int, seed: int, *paths: str) -> dict[str, float]:
    from train.apps.recommending.off_policy import off_policy

    target_N, each, looked_K = policies(*paths)
    rng, rows = np.random.default_rng(seed), np.arange(len(target_N))
    logging_KNI, wanted_KNI = each["logging"], each[name]

    def value(policy_KNI: Any) -> float:
        return float((policy_KNI[:, rows, target_N] * looked_K[:, None]).sum(0).mean())

    true, logged = value(wanted_KNI), value(logging_KNI)
    cumulated_NI = np.cumsum(logging_KNI[0], 1)
    errors, covered, order, effective = [], 0, 0, []
    for _ in range(LOGS):
        visitor_B = rng.integers(len(target_N), size=size)
        page_BK = np.stack([(cumulated_NI[visitor_B] < rng.random((size, 1))).sum(1) for _ in range(PLACES)], 1)
        page_BK = np.minimum(page_BK, cumulated_NI.shape[1] - 1)
        shown_BK = logging_KNI[0][visitor_B[:, None], page_BK]
        wanted_BK = wanted_KNI[np.arange(PLACES)[None], visitor_B[:, None], page_BK]
        looked_BK = rng.random((size, PLACES)) < looked_K
        clicked_BK = (page_BK == target_N[visitor_B][:, None]) & looked_BK
        found = off_policy(clicked_BK, shown_BK, wanted_BK)
        errors.append([(one.value - true) / true for one in (found.plain, found.normalised, found.clipped)])
        covered += found.plain.low <= true <= found.plain.high
        order += found.plain.low > logged
        effective.append(found.effective)
    plain, normalised, clipped = np.sqrt(np.square(errors).mean(0)).tolist()
    shares = {"covered": covered / LOGS, "order": order / LOGS, "effective": float(np.mean(effective))}
    return {"error": plain, "normalised": normalised, "clipped": clipped, **shares, "value": true}


if __name__ == "__main__":
    name, size, seed, *paths = sys.argv[1:]
    print(json.dumps(measured(name, int(size), int(seed), *paths)))
