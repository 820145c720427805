"""Raw files into shards, shards into batches. NumPy only; nothing here knows of models."""

import importlib

_FACE = {
    "UserError": "errors",
    "Corpus": "shards",
    "Batches": "batches",
    "TextBatch": "text",
    "load_tokenizer": "tokenizer",
    "PrepareText": "prepare",
    "prepare_text": "prepare",
    "MediaCorpus": "media_shards",
    "inspect_corpus": "inspect",
}
__all__ = list(_FACE)


def __getattr__(name):
    if name not in _FACE:
        raise AttributeError(f"module 'data' has no attribute {name!r}")
    return getattr(importlib.import_module(f"data.{_FACE[name]}"), name)


def __dir__():
    return sorted(__all__)
