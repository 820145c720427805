"""`omnia evaluate --tasks`: what it refuses before anything is loaded, and what it prints."""

import pytest

from data.errors import UserError
from train.verbs.evaluate import evaluate
from train.verbs.tasks import _lines


@pytest.mark.parametrize(
    "options, words",
    [
        (["--limit", "3"], "--limit belongs to --tasks"),
        (["--tasks", "a", "--needle"], "--needle is a measurement of its own"),
        (["--tasks", "a", "--rows", "3"], "--rows is not for --needle and --tasks"),
        (["--tasks", "a", "--split", "test"], "--split goes with none of --decode, --tasks and --task"),
        (["--tasks", "a", "--shots", "-2"], "--shots -1 or more"),
    ],
)
def test_options_that_mean_nothing_together_are_refused(options, words):
    with pytest.raises(UserError, match=words):
        evaluate(["run", *options])


def test_each_score_has_a_line_with_its_error():
    """Behind a filter of the task too."""
    known = {"samples": 4, "shots": 0, "version": 1.0}
    found = {
        "a": known | {"acc": 0.5, "acc_stderr": 0.25},
        "b": known | {"match,strict": 1.0, "match_stderr,strict": 0.0, "perplexity": 8.0},
    }
    assert [line[0] + " " + " ".join(line[3:]).strip() for line in _lines(found)] == [
        "a acc 0.5000 0.2500",
        "b match,strict 1.0000 0.0000",
        "b perplexity 8.0000",
    ]
