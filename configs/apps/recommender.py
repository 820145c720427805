"""A recommender: what a user takes next, with reasons, from events and, where there are some, texts of the items.

omnia train configs/apps/recommender.py --run-dir RUN --data.files ratings.csv --data.items movies.csv --data.user userid \\
    --data.item movieid --data.time timestamp --data.key movieId --data.text title genres
Two and a half minutes on two cores with other work on them for 100,000 ratings of 9,700 films (MovieLens). Then omnia apply RUN
--input rows.jsonl --output lists.jsonl, of rows such as {"user": "7", "top": 5} or {"history": ["1", "50"], "diversity": 0.3}; the first
time, a ranker is learned, which takes 20 seconds here.
"""

import dataclasses
from pathlib import Path

from train import Experiment
from train.verbs.config_files import load_config


def get_config(arg: str = "") -> Experiment:
    experiment = load_config(str(Path(__file__).parent.parent / "tasks" / "recommendation.py"))
    return dataclasses.replace(experiment, name="recommender")
