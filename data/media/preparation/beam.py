"""The tasks of a preparation of media by Apache Beam, where the data outgrow one machine. Needs apache-beam (extra: beam).

Each element is a task, and writes what prepare.py has it write on one machine, byte for byte. Workers bring finished tasks into the
journal, in a folder that all machines share: a pipeline that was broken off goes on where it stopped, by Beam or without it.
"""

from data.errors import UserError
from data.loading import journal
from data.media.preparation.task import write_media_shards


def run(folder: str, calls: dict[int, tuple], runner: str, suffixes: tuple[str, ...]) -> None:
    """Does the tasks that the journal has not; calls: the arguments of write_media_shards, by the numbers of the tasks."""
    beam, pipeline_options = _packages()
    missing = [(folder, number, call, suffixes) for number, call in calls.items() if not journal.finished(folder, number)]
    if not missing:
        return
    name, *arguments = runner.split()
    options = pipeline_options.PipelineOptions([f"--runner={name}", *arguments])
    with beam.Pipeline(options=options) as pipeline:
        pipeline | beam.Create(missing) | beam.Reshuffle() | beam.MapTuple(_do)


def _do(folder, number, call, suffixes):
    if not journal.finished(folder, number):  # Beam may do an element more than once
        arguments = (*call, _unreported)
        journal.keep(folder, number, write_media_shards(*arguments), suffixes)


def _unreported(count):
    """Beam reports progress itself."""


def _packages():
    try:
        import apache_beam
        from apache_beam.options import pipeline_options
    except ImportError:
        raise UserError("Preparing with Beam needs the package apache-beam.", 'pip install "omnia[beam,media]"') from None
    return apache_beam, pipeline_options
