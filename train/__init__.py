"""Training: objectives, the step, the loop, checkpoints, evaluation. Brings `data` and `model` together."""

_FACE = {
    "Experiment": "experiment",
    "create_run": "runs.directory",
    "open_run": "runs.directory",
    "open_corpora": "runs.directory",
    "resolve": "runs.resolve",
    "train": "loop.loop",
    "evaluate_run": "evaluation.checkpoint",
    "load_generator": "generation.text",
    "make_update": "step.update",
    "write_report": "loop.report",
}
__all__ = list(_FACE)


def __getattr__(name):
    """Load a name of the face on first use, so that importing the room costs nothing (PEP 562)."""
    if name not in _FACE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_FACE[name]}"), name)
