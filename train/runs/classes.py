"""The classes of a stored experiment: ours by their module, a user's own by the config file that defines them.

config.json names each class as "module:Class", or "config:Class" where the run's own config file defines it. Reading it imports our own
modules and nothing else. A config file is run only when the user names it; classes that a notebook has defined already are found too.
"""

import difflib
import importlib
import importlib.machinery
import importlib.util
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import xxhash

from data.errors import UserError

ROOMS = ("data", "model", "train")
"""Our packages, which omnia.py knows to be ours before anything is read."""
KEPT = "config.py"
"""The copy of a config file in a run whose experiment has classes of it."""
_MODULE = "omnia_config_"

_OLD = {
    "data.media.signals.augment_config": "Augment",
    "model.config": "ModelConfig",
    "model.media.encoder_config": "AudioEncoder ImageEncoder Projection VideoEncoder",
    "train.experiment": (
        "Adafactor AdamW CausalLM Checkpoints Evaluation Experiment Faults Lion Logging MeshShape Muon SGD Samples "
        "Scaling Schedule ScheduleFree TextData"
    ),
    "train.rl.environments.code": "PassesTests Programs PythonFunctions PythonParses",
    "train.rl.environments.files": "Listed PromptFile",
    "train.rl.environments.simulators": "HiddenUser Recommendations SlotFilling",
    "train.rl.environments.text_games": "Calculator SecretCode TreasureMap",
    "train.rl.environments.text_tasks": "Addition Bandit Countdown KeyFacts Letters RandomWalks Reviews",
    "train.rl.environments.word_problems": "WordProblems",
    "train.rl.games.options": "AlphaZero BoardGame",
    "train.rl.options": (
        "DAPO Demonstrations DrGRPO ExpertIteration GRPO GSPO PPO PolicyGradient PreferenceLearning Preferences Prompts "
        "RLOO ReinforcePlusPlus RewardModelling"
    ),
    "train.rl.rewards.rewards": "Answer Format Judged Length Lexicon Repetition RewardModel Similarity Sum",
    "train.objectives.media.options": "AlignedLM Alignment Codebook HiddenPatches MediaClassification MediaLM",
    "train.sources.media.options": "MediaShards WorldScenes",
}
OLD_NAMES = {name: f"{module}:{name}" for module, names in _OLD.items() for name in names.split()} | {
    "OmniConfig": "model.media.multimodal_config:MultimodalConfig"
}
"""Format 1 had the names of classes alone."""
MOVED = {
    f"train.apps.{name}": f"train.apps.{folder}.{name}"
    for folder, names in {
        "dialogue": "coherence",
        "editing": "editing spelling",
        "education": "grading practice tutoring",
        "medicine": "medical_case",
        "monitor": "finance_monitor",
        "service": "customer_service",
        "writing": "story verse",
    }.items()
    for name in names.split()
} | {
    "train.tasks.augmentation": "train.tasks.changes.augmentation",
    "train.tasks.interactions": "train.tasks.recommending.interactions",
}
"""Modules of classes that runs name, and where these are since."""
OLD_FIELDS = (
    {
        "train.sources.media.options:MediaShards": {"recordings": "audios", "dropped": "media_dropout"},
        "train.sources.media.options:WorldScenes": {"recordings": "audios", "dropped": "media_dropout"},
    }
    | dict.fromkeys(
        (f"train.rl.options:{name}" for name in "DAPO DrGRPO ExpertIteration GRPO GSPO PPO PolicyGradient RLOO ReinforcePlusPlus".split()),
        {"decay": "gae_lambda", "samples": "group_size"},
    )
    | {"train.rl.environments.text_tasks:Reviews": {"judged": "criterion"}}
    | dict.fromkeys(("model.config:ModelConfig", "model.media.multimodal_config:MultimodalConfig"), {"post_norm": "norm_position"})
)
"""Fields that have another name since."""
OLD_VALUES: dict[str, dict] = {"norm_position": {False: "pre", True: "both"}}
"""Values that such a field had under its first name."""

_allowed: list[str] = []
_loaded: dict[str, ModuleType] = {}


def allow(target: str) -> None:
    """Let runs that need it load this config file, `FILE.py` or `FILE.py:arg`: the user has named it."""
    path = target.partition(".py:")[0] + ".py" if ".py:" in target else target
    if not Path(path).is_file():
        raise UserError(f"--config {path}: no such file", "Give the config file that the run was started with, or the copy that it keeps.")
    _allowed.append(path)


class _AsRead(importlib.machinery.SourceFileLoader):
    """Compiles what was read. Python's own loader takes the compiled code of an older file for that of this one, if they have as many bytes
    and are of the same second."""

    def __init__(self, name: str, path: str, content: bytes):
        super().__init__(name, path)
        self._content = content

    def get_code(self, fullname: str):
        return self.source_to_code(self._content, self.path)


def load_file(path: str) -> ModuleType:
    """Run a config file, once for the same content. UserError, with the line, for whatever it raises."""
    content = Path(path).read_bytes()
    digest = xxhash.xxh3_128_hexdigest(content)
    if digest in _loaded:
        return _loaded[digest]
    name = _MODULE + digest
    spec = importlib.util.spec_from_file_location(name, path, loader=_AsRead(name, path, content))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look the names of their annotations up there
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        if isinstance(error, Exception | SystemExit) and not isinstance(error, UserError):
            raise UserError(described(path, error)) from None
        raise
    module.__dict__["__source__"] = content
    _loaded[digest] = module
    return module


def described(path: str, error: BaseException) -> str:
    """What code of a config file raised, and in which of its lines."""
    lines = [
        frame.lineno for frame in traceback.extract_tb(error.__traceback__) if os.path.abspath(frame.filename) == os.path.abspath(path)
    ]
    line = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else "?"
    return f"{path}: line {line}: {type(error).__name__}: {error}"


def own_file(error: BaseException) -> str:
    """The config file whose code an error was raised in, last of all its frames in one; "" for none."""
    own = {os.path.abspath(str(module.__file__)): str(module.__file__) for module in _loaded.values()}
    frames = [os.path.abspath(frame.filename) for frame in traceback.extract_tb(error.__traceback__)]
    return next((own[name] for name in reversed(frames) if name in own), "")


def name_of(kind: type) -> str:
    """What config.json calls a class."""
    module = "config" if kind.__module__.startswith(_MODULE) else kind.__module__
    return f"{module}:{kind.__qualname__}"


def check_found(kinds: list[type]) -> None:
    """UserError for the first class that another process could not find by its name."""
    for kind in kinds:
        if kind.__module__.split(".")[0] not in ROOMS and not kind.__module__.startswith(_MODULE):
            raise UserError(
                f"class {kind.__qualname__} is of module {kind.__module__}", "Define it in the config file itself, which the run keeps."
            )
        if "." in kind.__qualname__:
            raise UserError(f"class {kind.__qualname__} is defined inside something else", "Define it at the top of the config file.")
    source_of(kinds)


def source_of(kinds: list[type]) -> dict | None:
    """{"file", "digest", "content"} of the config file that defines some of the classes; None where there is none."""
    names = {kind.__module__ for kind in kinds if kind.__module__.startswith(_MODULE)}
    if not names:
        return None
    if len(names) > 1:
        raise UserError("the experiment has classes of two config files", "Define them in one file.")
    module = sys.modules[names.pop()]
    return {"file": Path(str(module.__file__)).name, "digest": module.__name__.removeprefix(_MODULE), "content": vars(module)["__source__"]}


def finder(where: str, source: dict | None, said: Callable[[str], None]) -> Callable[[str], type | None]:
    """find(name) -> the class that a stored experiment names, None for none. where: the run, for errors. source: its config file."""

    def find(name: str) -> type | None:
        module, _, qualname = OLD_NAMES.get(name, name).partition(":")
        module = MOVED.get(module, module)
        if module == "config" and source is not None:
            return _inside(_config_module(where, source, qualname, said), qualname)
        if module.split(".")[0] in ROOMS:
            try:
                return _inside(importlib.import_module(module), qualname)
            except ImportError:
                return None
        return _inside(sys.modules.get(module), qualname)  # of a notebook, or another module that is loaded: nothing is imported for it

    return find


def _inside(module: ModuleType | None, qualname: str) -> type | None:
    found = None if module is None else vars(module).get(qualname)
    return found if isinstance(found, type) else None


def _config_module(where: str, source: dict, qualname: str, said: Callable[[str], None]) -> ModuleType:
    """The config file of a run: that very file, where the user has named it; or another that the user has named for it."""
    for path in _allowed:
        load_file(path)
    if source["digest"] in _loaded:
        return _loaded[source["digest"]]
    for module in reversed(_loaded.values()):
        if hasattr(module, qualname):
            said(f"{where}: {qualname} is taken from {module.__file__}, which is not as it was when the run was started")
            return module
    if _loaded:
        files = ", ".join(sorted(str(module.__file__) for module in _loaded.values()))
        raise UserError(
            f"{where}: its experiment has a class {qualname} of {source['file']}, which {files} does not define", "Name that file."
        )
    raise UserError(
        f"{where}: its experiment has classes of a config file ({source['file']}), and no such file is run unasked",
        f"Give that file: --config {source['file']}. The run keeps a copy; read it before you trust it: --config {Path(where) / KEPT}.",
    )


def nearest(name: str, known) -> str:
    """The known name that was probably meant, in parentheses."""
    close = difflib.get_close_matches(name, list(known), 1)
    return f" (did you mean {close[0]!r}?)" if close else ""
