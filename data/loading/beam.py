"""Tasks of a preparation by Apache Beam, where the data outgrow one machine. Needs apache-beam (extra: beam).

Each element is a task, and does what `preparation.run` has it do on one machine, byte for byte. Workers bring finished tasks into the
journal, in a folder that all machines share: a pipeline that was broken off goes on where it stopped, by Beam or without it.
"""

from collections.abc import Callable

from data.errors import UserError
from data.loading import journal


def run(
    folder: str,
    calls: dict[int, tuple],
    function: Callable,
    runner: str,
    suffixes: tuple[str, ...] = (),
    stage: str = "",
    shards: tuple[str, ...] = journal.SPLITS,
) -> None:
    """Does the tasks that the journal has not. calls: the arguments of `function`, by the numbers of the tasks; the rest as of
    `preparation.run`. runner: its name and options."""
    beam, pipeline_options = _packages()
    missing = [
        (folder, number, call, function, suffixes, stage, shards)
        for number, call in calls.items()
        if not journal.finished(folder, number, stage)
    ]
    if not missing:
        return
    name, *arguments = runner.split()
    options = pipeline_options.PipelineOptions([f"--runner={name}", *arguments])
    with beam.Pipeline(options=options) as pipeline:
        pipeline | beam.Create(missing) | beam.Reshuffle() | beam.MapTuple(do_task)


def do_task(
    folder: str, number: int, call: tuple, function: Callable, suffixes: tuple[str, ...], stage: str, shards: tuple[str, ...]
) -> None:
    """One task; Beam may do an element more than once."""
    if not journal.finished(folder, number, stage):
        journal.keep(folder, number, function(*call, _unreported), suffixes, stage, shards)


def _unreported(count):
    """Beam reports progress itself."""


def _packages():
    try:
        import apache_beam
        from apache_beam.options import pipeline_options
    except ImportError:
        raise UserError("Preparing with Beam needs the package apache-beam.", 'pip install "omnia[beam,media]"') from None
    return apache_beam, pipeline_options
