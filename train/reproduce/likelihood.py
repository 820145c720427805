"""How likely texts are to a language model, as several tables measure it."""

from collections.abc import Sequence


def nats_of(texts: Sequence[str], model: str) -> list[float]:
    """Of each text with its end, minus the log-probability by the run of a decoder that reads it from its beginning. The end of one that is
    longer than the model's window is read after as much as fits."""
    from train.checkpoints.checkpointer import load_parameters
    from train.devices.mesh import inference_mesh
    from train.evaluation.likelihood import Likelihoods
    from train.generation.text import decoder_of
    from train.runs.directory import open_run

    run = open_run(model)
    mesh, tokenizer = inference_mesh(run.experiment.mesh), run.tokenizer()
    params, _ = load_parameters(run, mesh)
    likelihoods = Likelihoods(decoder_of(run, reads=True), params, mesh, context_length=1024)
    ids = [[*tokenizer.encode(text).tolist(), tokenizer.specials["document_end"]] for text in texts]
    return [-one for one in likelihoods.rolling(ids, tokenizer.document_start)]
