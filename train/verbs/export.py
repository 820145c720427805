"""`omnia export`: a run as others read it."""

import dataclasses
from pathlib import Path
from typing import Literal

import tyro

from train.verbs.arguments import check_belongs, parse, start_jax


@dataclasses.dataclass(frozen=True)
class Export:
    """Write a run as a Hugging Face folder or a GGUF file, or its adapters alone. Uses the averaged parameters if the run keeps them."""

    run_dir: tyro.conf.Positional[str]
    """Folder of the run."""
    format: Literal["hf", "gguf", "adapters"]
    """hf: a folder for Hugging Face transformers. gguf: a file for llama.cpp. adapters: a folder for PEFT, without the model."""
    output: str
    """The folder to write (hf, adapters), or the file (gguf, ending in .gguf). It must not exist."""
    type: Literal["f32", "f16", "bf16", "q8_0"] = "f32"
    """Type of the matrices; norms and biases stay f32 in a GGUF file. q8_0 (eight bits in blocks of 32) is for gguf only."""
    step: int | None = None
    """Checkpoint to export. Default: the latest."""
    raw: bool = False
    """Use the trained parameters even if an average is kept."""


def export(arguments: list[str]) -> None:
    options = parse(Export, "export", arguments)
    from train.runs.directory import open_run

    run = open_run(options.run_dir)
    check_belongs("export", options, type=(options.format != "adapters", "is of the model, and --format adapters writes none"))
    start_jax()
    if options.format == "adapters":
        from train.bridge.adapters import export_adapters

        return export_adapters(run, Path(options.output), step=options.step, raw=options.raw)
    from train.bridge.exporting import export_model

    export_model(run, options.format, Path(options.output), options.type, step=options.step, raw=options.raw)
