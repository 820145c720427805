"""What a run's numbers depend on beside its experiment: versions, devices, cores."""

import importlib.metadata
import os
import platform
import sys
from pathlib import Path

from data.errors import UserError
from data.files import json_files
from train.runs.serialize import flatten


def environment() -> dict:
    """Versions, devices and cores: what a run's numbers depend on."""
    import jax

    versions = {name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")}
    device = jax.devices()[0]
    return {
        "python": platform.python_version(),
        "versions": versions,
        "platform": device.platform,
        "device": device.device_kind,
        "devices": jax.device_count(),
        "processes": jax.process_count(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    }


def differences(run_dir: Path, here: dict) -> list[str]:
    """What of `here` (environment() and numerics) is not as the run's environment.json has it, and may change its last bits."""
    try:
        before = json_files.read(run_dir / "environment.json", "")
    except (OSError, UserError):
        return []  # it is only to tell what has changed
    matters = ("versions", "platform", "device", "devices", "processes", "cores", "compiler_options", "attention_kernels")
    old, new = (flatten({name: json_files.parse(json_files.dumps(of.get(name)), object) for name in matters}) for of in (before, here))
    return [f"{name} was {old.get(name)}, is {value}" for name, value in new.items() if old.get(name) != value]
