"""A recommender's ranker beside each of the measures that it weighs: on films rated, pages visited, and papers, some of which nobody had.

omnia reproduce recommender_ranker --data DIR
"""

import dataclasses
import sys
from pathlib import Path
from typing import Any

from data.files import json_files
from train.experiment import Evaluation, Experiment
from train.reproduce.files import PublicFile, rows_of
from train.reproduce.table import Better, Metric, Row, Shared, Table, training
from train.tasks.recommending.interactions import Recommendation
from train.verbs.config_files import load_config

FILES = (
    PublicFile("ratings", "movielens_small/ratings.csv", "2f8fd2116cbb4ef7ddbfd8537a4dd1209fffa15092cb28ec4c03a950827068ad"),
    PublicFile("movies", "movielens_small/movies.csv", "c47b783f23eb304413307e1bb05335e427737da20ec8d3c0e96335567dd5f3dc"),
    PublicFile("visits", "applications/msweb/train.jsonl", "f8a151256ce91ddc84a7be43f4b934185032dce13268681e94d93095da4d1421"),
    PublicFile("visitors", "applications/msweb/test.jsonl", "4260fade33fe8e8e9eb41e5a4ad9d9d44ebd5c22972c258690151697fa36e0d0"),
    PublicFile("film_texts", "applications/movielens_text/items.jsonl", "9b35390bba80d31a3e9449b6a67c36422b9ef3c7a9755f171e360fdb96bbfcfc"),
    PublicFile("readers", "applications/citeulike_a/users.jsonl", "54f6e10d8b9621aa977b2382bde835cad14f34ef4e20737ce831aeaba1cfc61e"),
    PublicFile("papers", "applications/citeulike_a/items.jsonl", "34ce8922eb045dc7526eb66627718a0de45de459da827e855171b2b8c6821f9c"),
    PublicFile("pages", "applications/msweb/items.jsonl", "90b062c43885cc1688e38acd629b033a4f6ab5cb6b34a09dd8c3ef459e0f62f1"),
)
"""MovieLens ml-latest-small; overviews and keywords of its films; researchers' libraries of papers with their tags (CiteULike); and the
visits to areas of a web site in a week (Breese et al. 1998)."""
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
TEXTS = ("title", "genres", "overview", "keywords")
PAPERS = {
    "popularity": "what most users had",
    "text": "nearness of texts",
    "neighbours": "item-kNN",
    "ease": "EASE",
    "towers": "two towers",
    "without": "ranker without two towers",
    "ranker": "ranker",
}
TOGETHER = 200
"""Researchers whose scores are in memory at once."""
EVERY = 3
"""Of researchers, who are asked for: the others are learned from alone."""


def get_config(arg: str = "films") -> Experiment:
    experiment = load_config(str(Path(__file__).parent.parent / "apps" / "recommender.py"))
    experiment = dataclasses.replace(experiment, evaluation=Evaluation(every=0))
    if arg == "films":
        return dataclasses.replace(experiment, data=Recommendation(**FILMS))
    if arg in ("film_towers", "papers"):
        towers = load_config(str(Path(__file__).parent.parent / "tasks" / "towers.py"))
        data = Recommendation(**FILMS | {"text": TEXTS}) if arg == "film_towers" else Recommendation(text=("tags",))
        return dataclasses.replace(towers, data=data, evaluation=Evaluation(every=0, rows=500))
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
            Metric("recall@20", "recall@20", lower_is_better=False, digits=4),
            Metric("cold", "recall@20 of cold papers among themselves", lower_is_better=False, digits=4),
        ),
        files=FILES,
        shared=(
            Shared("events", ("python {table} events {run} {visits} {visitors}",)),
            Shared("films", (training("{table}:films", "--data.files {ratings} --data.items {movies}"),)),
            Shared("web", (training("{table}:web", "--data.files {events}/events.csv --data.items {pages}"),)),
            Shared("texts", ("python {table} texts {run} {film_texts}",)),
            Shared("film_towers", (training("{table}:film_towers", "--data.files {ratings} --data.items {texts}/items.jsonl"),)),
            Shared("found_texts", ("python {table} films {films} {run} {texts}/items.jsonl",)),
            Shared("found_towers", ("python {table} films {films} {run} {texts}/items.jsonl {film_towers}",)),
            Shared("libraries", ("python {table} libraries {run} {readers}",)),
            Shared("papers_run", (training("{table}:papers", "--data.files {libraries}/events.csv --data.items {papers}"),)),
            Shared("found_papers", ("python {table} papers {papers_run} {run} {readers}",)),
            Shared("found_films", ("python {table} films {films} {run}",)),
            Shared("found_web", ("python {table} web {web} {run} {events}",)),
        ),
        rows=(
            *rows("films", "films", tuple(MEASURES)),
            *(
                Row(
                    f"{where}_{measure}",
                    f"films with overviews and keywords: {what}",
                    (f"python {{table}} show {{found_{where}}} {measure}",),
                )
                for where, measure, what in (
                    ("texts", "ranker", "ranker without two towers"),
                    ("towers", "towers", "two towers"),
                    ("towers", "ranker", "ranker with two towers"),
                )
            ),
            *(
                Row(f"papers_{name}", f"papers: {what}", (f"python {{table}} show {{found_papers}} {name}",))
                for name, what in PAPERS.items()
            ),
            *rows("web", "pages", tuple(measure for measure in MEASURES if measure != "recency")),  # visits carry no time
        ),
        claims=(
            *(Better("films_ranker", f"films_{measure}") for measure in ("model", "ease", "neighbours", "popularity")),
            *(Better("web_ranker", f"web_{measure}") for measure in ("model", "ease", "neighbours", "popularity")),
            *(Better(f"{where}_diversity_0.3", f"{where}_ranker", metric="diversity") for where in ("films", "web")),
        ),
        note="Films: 610 users, 9,742 films, a user's last one is the test. Pages: 31,063 users are learned from, 2,897 others are tested "
        "by one page each. All items are ranked but those that the user had. Weights and settings are learned on the last item but one of "
        "users who are learned from. Overviews and keywords are of 3,537 films. Papers: 5,011 researchers, 16,980 papers with tags as "
        "their texts, every third researcher is asked for, 915 papers are nobody's; the ranker's model are the towers, and without them it "
        "weighs the rest. There are no times, and the tags were given by the same researchers. Two towers have 300 steps; the papers took "
        "four minutes of processor.",
    )


def events(folder: Path, visits: str, visitors: str) -> None:
    """Visits as events, without times; and the histories of visitors with the page that is asked for."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [f"{row['user']},{item},0\n" for row in rows_of(visits) for item in row["items"]]
    (folder / "events.csv").write_text("user,item,time\n" + "".join(lines))
    json_files.write_lines(folder / "rows.jsonl", ({"history": row["history"], "next": row["target"]} for row in rows_of(visitors)))


def application_of(run: str, items: str = "", towers: str = "") -> Any:
    """items: a file of the same items with more text."""
    from train.apps.recommending.recommender import Recommender, Scoring

    texts = {"items": items, "text": TEXTS} if items else {}
    scoring = Scoring(*opened(run, **texts))
    if scoring.dataset.log.items != opened(run)[1].log.items:
        raise ValueError(f"{items} has other items, or in another order")
    return Recommender(scoring, Scoring(*opened(towers)) if towers else None)


def opened(run: str, **changed: Any) -> tuple[Any, Any]:
    """A run and its data. changed: options of the data."""
    from train.runs.directory import open_run
    from train.sources.dataset import dataset_of

    found = open_run(run)
    dataset = dataset_of(dataclasses.replace(found.experiment, data=dataclasses.replace(found.experiment.data, **changed)))
    dataset.place = found.path
    return found, dataset


def web(run: str, folder: str) -> dict[str, dict[str, float]]:
    """Of the rows of visitors whom nobody learned from."""
    import numpy as np

    from train.apps.recommending.ranker import Asked

    application = application_of(run)
    rows = [row for row in rows_of(str(Path(folder) / "rows.jsonl")) if application.number(row["next"]) is not None]
    items = [np.array([application.number(item) for item in row["history"]], np.int64) for row in rows]
    model_NI = application.scoring.scores(items, [None] * len(items))
    asked = Asked(items, np.full(len(items), np.inf), model_NI)
    return application.measured(application.ranker.known, asked, [application.number(row["next"]) for row in rows])


def texts(folder: Path, films: str) -> None:
    """Films with all columns, of which some have no overview."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = ({"movieId": row["movieId"]} | {name: row.get(name) for name in TEXTS} for row in rows_of(films))
    json_files.write_lines(folder / "items.jsonl", rows)


def libraries(folder: Path, readers: str) -> None:
    """What researchers had, without times."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [f"{row['user']},{item},0\n" for row in rows_of(readers) for item in row["train"] + row["valid"]]
    (folder / "events.csv").write_text("user,item,time\n" + "".join(lines))


def papers(run: str, readers: str) -> dict[str, dict[str, float]]:
    """recall@20 and NDCG@10 of every third researcher's papers of the test among all, and recall@20 of papers that nobody had among those.
    The run is one of two towers, which are the ranker's model; without them it knows the other measures alone."""
    import numpy as np

    from train.apps.recommending.recommender import Recommender, Scoring
    from train.tasks.metrics.ranking import best, ranking_scores, unseen

    class Silent(Scoring):
        """A model that says nothing, so that the ranker weighs the rest alone."""

        def __init__(self, *of: Any):
            super().__init__(*of)
            self.reads = [*self.reads, "silent"]

        def scores(self, items: Any, users: Any, kinds: Any = None) -> Any:
            return np.zeros((len(items), len(self.dataset.log.items)), np.float32)

    application, without = application_of(run), Recommender(Silent(*opened(run)))
    had_I = np.asarray(application.ranker.known.x_UI.sum(0)) > 0
    rows = [row for row in rows_of(readers)[::EVERY] if row["test"] or row["cold"]]
    items = [np.array([application.number(item) for item in row["train"] + row["valid"]], np.int64) for row in rows]
    lists: dict[str, list[tuple[list[int], list[int]]]] = {name: [] for name in PAPERS}
    for some in (slice(begin, begin + TOGETHER) for begin in range(0, len(items), TOGETHER)):
        users = [None] * len(items[some])
        part, silent = application.asked_now(items[some], users), without.asked_now(items[some], users)
        both = application.ranker.features(part)
        scores = dict(zip(application.ranker.names, both, strict=True)) | {"ranker": application.ranker.scores(both)}
        scores |= {"towers": scores["model"], "without": without.ranker.scores(without.ranker.features(silent))}
        for name, found in lists.items():
            for seen, scores_I in zip(part.items, scores[name], strict=True):
                found.append((best(unseen(scores_I, seen), 20), best(np.where(had_I, -np.inf, scores_I), 20)))
    answer: dict[str, dict[str, float]] = {}
    for name, found in lists.items():
        for column, place in (("test", 0), ("cold", 1)):
            true = [{application.number(item) for item in row[column]} for row in rows]
            chosen = [number for number, one in enumerate(true) if one]
            values = ranking_scores([true[one] for one in chosen], [found[one][place] for one in chosen], ks=(10, 20)).values
            answer.setdefault(name, {}).update(
                {"ndcg@10": values["ndcg@10"], "recall@20": values["recall@20"]} if column == "test" else {"cold": values["recall@20"]}
            )
    return answer


if __name__ == "__main__":
    what, first, *rest = sys.argv[1:]
    if what in ("events", "texts", "libraries"):
        {"events": events, "texts": texts, "libraries": libraries}[what](Path(first), *rest)
    elif what == "show":
        print(json_files.dumps(json_files.read(Path(first) / "found.json", "Run the table again.")[rest[0]]))
    else:
        if what == "films":
            found = application_of(first, *rest[1:]).tested()
        else:
            found = papers(first, rest[1]) if what == "papers" else web(first, rest[1])
        Path(rest[0]).mkdir(parents=True, exist_ok=True)
        json_files.write(Path(rest[0]) / "found.json", found)
