"""How likely texts are to a language model, as several tables measure it."""

from collections.abc import Sequence

WINDOW = 1024


def nats_of(texts: Sequence[str], model: str) -> list[float]:
    """Of each text, its end included, minus its log-probability by a decoder's run. A text of more than WINDOW tokens is read in windows of
    that size, each token after as many of those before it as fit."""
    from train.checkpoints.checkpointer import load_parameters
    from train.devices.mesh import inference_mesh
    from train.evaluation.likelihood import Likelihoods
    from train.generation.text import decoder_of
    from train.runs.directory import open_run

    run = open_run(model)
    mesh, tokenizer = inference_mesh(run.experiment.mesh), run.tokenizer()
    params, _ = load_parameters(run, mesh)
    likelihoods = Likelihoods(decoder_of(run, reads=True), params, mesh, context_length=WINDOW)
    ids = [[*tokenizer.encode(text).tolist(), tokenizer.specials["document_end"]] for text in texts]
    return [-one for one in likelihoods.rolling(ids, tokenizer.document_start)]
