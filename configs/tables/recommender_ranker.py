"""A recommender's ranker beside each of the measures that it weighs: on films rated, and on pages visited.

omnia reproduce recommender_ranker --data DIR
"""

import dataclasses
import sys
from pathlib import Path
from typing import Any

from data.files import json_files
from train.experiment import Evaluation, Experiment
from train.reproduce.files import PublicFile
from train.reproduce.table import Better, Metric, Row, Shared, Table, training
from train.tasks.interactions import Recommendation
from train.verbs.config_files import load_config

FILES = (
    PublicFile("ratings", "movielens_small/ratings.csv", "2f8fd2116cbb4ef7ddbfd8537a4dd1209fffa15092cb28ec4c03a950827068ad"),
    PublicFile("movies", "movielens_small/movies.csv", "c47b783f23eb304413307e1bb05335e427737da20ec8d3c0e96335567dd5f3dc"),
    PublicFile("visits", "applications/msweb/train.jsonl", "f8a151256ce91ddc84a7be43f4b934185032dce13268681e94d93095da4d1421"),
    PublicFile("visitors", "applications/msweb/test.jsonl", "4260fade33fe8e8e9eb41e5a4ad9d9d44ebd5c22972c258690151697fa36e0d0"),
    PublicFile("pages", "applications/msweb/items.jsonl", "90b062c43885cc1688e38acd629b033a4f6ab5cb6b34a09dd8c3ef459e0f62f1"),
)
"""MovieLens ml-latest-small, and the visits to areas of a web site in a week (Breese et al. 1998)."""
FILMS = {"user": "userid", "item": "movieid", "time": "timestamp", "key": "movieId", "text": ("title", "genres")}
MEASURES = {
    "popularity": "what most users had",
    "recency": "what was had lately",
    "text": "nearness of texts",
    "neighbours": "item-kNN",
    "ease": "EASE",
    "model": "a decoder over items",
    "ranker": "all of these, by learned weights",
    "diversity 0.3": "the same, re-ranked for diversity",
}


def get_config(arg: str = "films") -> Experiment:
    experiment = load_config(str(Path(__file__).parent.parent / "apps" / "recommender.py"))
    experiment = dataclasses.replace(experiment, evaluation=Evaluation(every=0))
    if arg == "films":
        return dataclasses.replace(experiment, data=Recommendation(**FILMS))
    return dataclasses.replace(experiment, batch_size=128, model=dataclasses.replace(experiment.model, context_length=16))


def get_table() -> Table:
    def rows(where: str, name: str, measures: tuple[str, ...]) -> tuple[Row, ...]:
        command = f"python {{table}} show {{found_{where}}}"
        return tuple(
            Row(f"{where}_{measure.replace(' ', '_')}", f"{name}: {MEASURES[measure]}", (f"{command} '{measure}'",)) for measure in measures
        )

    return Table(
        title="A recommender's ranker beside what it weighs",
        paper="Steck 2019 (EASE), tables 1 and 2; Breese et al. 1998 (MSWeb); Carbonell and Goldstein 1998 (MMR)",
        claim="A ranker over a decoder, EASE, neighbours, popularity, recency and texts orders all items better than any of them alone.",
        metrics=(
            Metric("ndcg@10", "NDCG@10", lower_is_better=False, digits=4),
            Metric("hit@10", "hit@10", lower_is_better=False, digits=4),
            Metric("coverage", "coverage", lower_is_better=False),
            Metric("diversity", "diversity", lower_is_better=False, digits=4),
            Metric("novelty", "novelty", "bits", lower_is_better=False, digits=2),
            Metric("gini", "Gini"),
        ),
        files=FILES,
        shared=(
            Shared("events", ("python {table} events {run} {visits} {visitors}",)),
            Shared("films", (training("{table}:films", "--data.files {ratings} --data.items {movies}"),)),
            Shared("web", (training("{table}:web", "--data.files {events}/events.csv --data.items {pages}"),)),
            Shared("found_films", ("python {table} films {films} {run}",)),
            Shared("found_web", ("python {table} web {web} {run} {events}",)),
        ),
        rows=(
            *rows("films", "films", tuple(MEASURES)),
            *rows("web", "pages", tuple(measure for measure in MEASURES if measure != "recency")),  # visits carry no time
        ),
        claims=(
            *(Better("films_ranker", f"films_{measure}") for measure in ("model", "ease", "neighbours", "popularity")),
            *(Better("web_ranker", f"web_{measure}") for measure in ("model", "ease", "neighbours", "popularity")),
            *(Better(f"{where}_diversity_0.3", f"{where}_ranker", metric="diversity") for where in ("films", "web")),
        ),
        note="Films: 610 users, 9,742 films, a user's last one is the test. Pages: 31,063 users are learned from, 2,897 others are tested "
        "by one page each. All items are ranked but those that the user had. Weights and settings are learned on the last item but one of "
        "users who are learned from.",
    )


def events(folder: Path, visits: str, visitors: str) -> None:
    """Visits as events, without times; and the histories of visitors with the page that is asked for."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [f"{row['user']},{item},0\n" for row in rows_of(visits) for item in row["items"]]
    (folder / "events.csv").write_text("user,item,time\n" + "".join(lines))
    json_files.write_lines(folder / "rows.jsonl", ({"history": row["history"], "next": row["target"]} for row in rows_of(visitors)))


def rows_of(path: str) -> list[dict[str, Any]]:
    return [json_files.parse(line) for line in Path(path).read_bytes().splitlines()]


def application_of(run: str) -> Any:
    from train.runs.directory import open_run
    from train.sources.dataset import dataset_of

    opened = open_run(run)
    dataset = dataset_of(opened.experiment)
    dataset.place = opened.path
    return dataset.application(opened)


def web(run: str, folder: str) -> dict[str, dict[str, float]]:
    """Of the rows of visitors whom nobody learned from."""
    import numpy as np

    from train.apps.ranker import Asked

    application = application_of(run)
    rows = [row for row in rows_of(str(Path(folder) / "rows.jsonl")) if application.number(row["next"]) is not None]
    items = [np.array([application.number(item) for item in row["history"]], np.int64) for row in rows]
    model_NI = application.scoring.scores(items, [None] * len(items))
    asked = Asked(items, np.full(len(items), np.inf), model_NI)
    return application.measured(application.ranker.known, asked, [application.number(row["next"]) for row in rows])


if __name__ == "__main__":
    what, first, *rest = sys.argv[1:]
    if what == "events":
        events(Path(first), *rest)
    elif what == "show":
        print(json_files.dumps(json_files.read(Path(first) / "found.json", "Run the table again.")[rest[0]]))
    else:
        found = application_of(first).tested() if what == "films" else web(first, rest[1])
        Path(rest[0]).mkdir(parents=True, exist_ok=True)
        json_files.write(Path(rest[0]) / "found.json", found)
