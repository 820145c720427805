"""The experiment that a config file gives."""

import dataclasses
import difflib
import re
import sys
from pathlib import Path

import train.adapters.options
import train.federated.options
import train.step.adversarial.options
import train.step.federated.options
import train.step.private.options  # noqa: F401, and `--gradient`
from data.errors import UserError
from train.experiment import Experiment, Optimizer
from train.kinds import Adapters, Gradient
from train.runs.classes import described, load_file, nearest
from train.runs.serialize import check_storable, check_types
from train.verbs.arguments import value_of


def load_config(target: str) -> Experiment:
    """The experiment of `FILE.py` or `FILE.py:arg`, by the file's `get_config(arg)`."""
    path, _, arg = target.partition(":")
    if not path.endswith(".py"):
        raise UserError(
            f"{path}: not a config file",
            "Give a Python file with a function get_config, such as configs/shakespeare.py, or a run directory.",
        )
    if not Path(path).is_file():
        near = sorted(str(file) for file in Path(path).parent.glob("*.py")) if Path(path).parent.is_dir() else []
        raise UserError(f"{path}: no such file", f"There are: {', '.join(near)}." if near else "")
    try:
        module = load_file(path)
        if not hasattr(module, "get_config"):
            raise UserError(f"{path}: has no function get_config", "A config file defines get_config(arg: str = ...) -> Experiment.")
        experiment = module.get_config(arg) if arg else module.get_config()
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"{target}: {error}") from None
    except (Exception, SystemExit) as error:  # whatever a file of the user's can raise
        raise UserError(described(path, error) + _nearest_field(error)) from None
    if not isinstance(experiment, Experiment):
        raise UserError(f"{path}: gives no experiment", "A config file defines get_config(arg: str = ...) -> Experiment.")
    try:
        check_types(experiment)
        check_storable(experiment)
    except UserError as error:
        raise UserError(f"{target}: {error}") from None
    return experiment


BY_NAME = {"adapters": Adapters, "gradient": Gradient, "optimizer": Optimizer}
"""Kinds that the command line may choose."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class KindsByName:
    """Kinds that the command line may choose by their names, beside the fields of those that the config has."""

    adapters: str = ""
    """Train few parameters beside the model of `start`: adalora, bitfit, houlsby, lora, prefix or prompt."""
    gradient: str = ""
    """Take the gradient in another way: exact; adversarially at perturbed embeddings: fgm, freelb or smart; private; or in
    federated rounds: federated."""
    optimizer: str = ""
    """Take updates in another way: adafactor, adagrad, adamw, lion, muon, schedulefree, sgd or yogi."""


def with_kinds(experiment: Experiment, arguments: list[str]) -> Experiment:
    """The experiment with the kinds that `--adapters NAME`, `--gradient NAME` and `--optimizer NAME` name, before their fields are parsed.
    UserError for other names."""
    for field, base in BY_NAME.items():
        given = value_of(f"--{field}", arguments)
        kinds = {name.lower(): kind for name, kind in _with_home(base).items()}
        kind = kinds.get((given or "").lower())
        if given is not None and kind is None:
            raise UserError(f"--{field} {given}: no such kind{nearest(given.lower(), kinds)}", f"Choose from {', '.join(sorted(kinds))}.")
        if kind is not None and type(getattr(experiment, field)) is not kind:
            experiment = dataclasses.replace(experiment, **{field: kind()})
    return experiment


def _with_home(kind: type) -> dict[str, type]:
    """A kind's subclasses that realise something, by name; those of a config file that was loaded too."""
    found = {kind.__name__: kind} if kind.home else {}  # type: ignore[attr-defined]
    for below in kind.__subclasses__():
        found |= _with_home(below)
    return found


def _nearest_field(error: BaseException) -> str:
    """For `Experiment(stepz=5)`: the field that was meant."""
    found = re.search(r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'", str(error))
    modules = (sys.modules["train.experiment"], sys.modules["model.config"])
    kinds = {name: kind for module in modules for name, kind in vars(module).items() if dataclasses.is_dataclass(kind)}
    if not found or found[1] not in kinds:
        return ""
    close = difflib.get_close_matches(found[2], [field.name for field in dataclasses.fields(kinds[found[1]])], 1)
    return f" (did you mean {close[0]!r}?)" if close else ""
