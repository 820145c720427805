"""A monitor of opinion: sentiment of posts and news by topic, and alerts where the negative surges.

omnia train configs/apps/finance_monitor.py --start MODEL --data.files posts.jsonl
Two minutes on two cores for 4,600 posts from two layers of a MiniLM; then, for as long as a stream grows,
omnia apply RUN --input stream.jsonl --output alerts.jsonl --follow
"""

from train import Experiment, FinanceMonitor, fine_tuning


def get_config(arg: str = "") -> Experiment:
    return fine_tuning("finance monitor", FinanceMonitor(length=64), steps=500, rate=3e-4, every=250, best="accuracy")
