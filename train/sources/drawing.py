"""From an experiment to what draws the rows of its steps, where its gradient method does."""

from train.experiment import Experiment
from train.kinds import Drawing, at


def drawing_of(experiment: Experiment) -> Drawing | None:
    """What draws the rows of steps; None where they come in the order of the data."""
    gradient = experiment.gradient
    return at(type(gradient), "drawing")(gradient, experiment) if type(gradient).drawing else None
