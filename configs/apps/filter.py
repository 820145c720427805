"""A filter of messages: spam is held back, and hardly any message that is wanted.

omnia train configs/apps/filter.py --start MODEL --data.files messages.jsonl
Two minutes on two cores for 3,900 short messages (SMS Spam) from a MiniLM. Then omnia apply RUN --input new.jsonl --output held.jsonl
"""

from train import Experiment, Filter, Supervised, fine_tuning


def get_config(arg: str = "") -> Experiment:
    return fine_tuning("filter", Filter(length=64, validation=0.2), objective=Supervised(ngrams=2), steps=250, rate=3e-4)
