"""Raw files into shards, shards into batches. NumPy only; nothing here knows of models."""

import importlib

_FACE = {
    "UserError": "errors",
    "Corpus": "text.shards",
    "Batches": "text.batches",
    "TextBatch": "text.rows",
    "load_tokenizer": "tokenizer",
    "PrepareText": "text.prepare",
    "prepare_text": "text.prepare",
    "PrepareClean": "clean.prepare",
    "prepare_clean": "clean.prepare",
    "PrepareClassifier": "clean.classifier",
    "prepare_classifier": "clean.classifier",
    "load_classifier": "clean.classifier",
    "Anonymizer": "anonymize.text",
    "Key": "anonymize.surrogates",
    "MediaCorpus": "media.shards",
    "inspect_corpus": "text.inspect",
    "PrepareMedia": "media.preparation.prepare",
    "prepare_media": "media.preparation.prepare",
    "make_scene": "media.world",
    "render_image": "media.world",
    "render_audio": "media.world",
    "log_mel": "media.signals.mel",
}
__all__ = list(_FACE)


def __getattr__(name):
    """Load a name of the face on first use, so that importing the room costs nothing (PEP 562)."""
    if name not in _FACE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_FACE[name]}"), name)


def __dir__():
    return sorted(__all__)
