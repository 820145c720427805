"""Texts in other words, by runs of one's own: through another language and back (Sennrich et al. 2016), or by a run that paraphrases.

python -m train.tasks.changes.paraphrase train.csv more.csv COLUMN RUN [RUN ...] writes the records whose text in a column came out
changed, with the text that the last run writes of what the one before wrote. RUN: of SequenceToSequence, such as en-de and de-en. Train on
both files.
"""

import sys

from data.errors import UserError
from data.records.rows import read_records
from data.records.writing import check_name, write_records
from train.tasks.examples import Example, column


def rewritten(run_dir: str, texts: list[str]) -> list[str]:
    """What a run writes of each text, the likeliest token at each place. UserError for a run that was not trained to do so."""
    from train.checkpoints.checkpointer import load_parameters
    from train.devices.mesh import inference_mesh
    from train.evaluation.totals import Evaluator
    from train.objectives.bind import bind
    from train.runs.directory import open_run
    from train.sources.dataset import dataset_of
    from train.tasks.sequence import SequenceDataset

    run = open_run(run_dir)
    dataset = dataset_of(run.experiment)
    if type(dataset) is not SequenceDataset:
        raise UserError(f"{run_dir}: was not trained to write texts of texts", "Give a run of SequenceToSequence.")
    mesh = inference_mesh(run.experiment.mesh)
    params, _ = load_parameters(run, mesh)
    evaluator = Evaluator(bind(run.experiment, mesh), run.experiment, mesh)
    examples = [Example({"source": text}, None, f"text {number}") for number, text in enumerate(texts, 1)]
    return dataset.answers(evaluator, params, examples, run.tokenizer())


def paraphrase(path: str, output: str, name: str, runs: list[str]) -> str:
    """Writes the changed records; returns a line that says how many."""
    check_name(output)
    records = read_records(path)
    before = [column(record, name) for record in records]
    texts = before
    for run in runs:
        texts = rewritten(run, texts)
    both = zip(records, before, texts, strict=True)
    changed = [{**record, name: text} for record, old, text in both if text and text != old.strip()]
    if not changed:
        raise UserError(f"{path}: no text came out changed", "Train the runs for longer, or on texts like these.")
    write_records(output, changed)
    return f"{output}: {len(changed)} of {len(records)} texts in other words"


def main(arguments: list[str]) -> int:
    if len(arguments) < 4:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        file, output, name, *runs = arguments
        print(paraphrase(file, output, name, runs))
    except (UserError, OSError) as error:
        print(f"omnia: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
