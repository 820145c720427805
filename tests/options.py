"""The options of the verbs, found without the parser."""

import dataclasses

from data.text.prepare import PrepareText
from train.experiment import Experiment, Optimizer, Scaling
from train.verbs.evaluate import Evaluate
from train.verbs.generate import Generate
from train.verbs.inspect import Inspect
from train.verbs.quickstart import Quickstart
from train.verbs.train import Train


def keys_of(value) -> set[str]:
    """The option names that a tree of dataclasses stands for, written with hyphens, found without the parser under test."""
    names = set()
    for field in dataclasses.fields(value):
        part, hint = getattr(value, field.name, None), str(field.type)
        if dataclasses.is_dataclass(part):
            prefix = "" if isinstance(part, Experiment) else field.name.replace("_", "-") + "."
            names |= {prefix + name for name in keys_of(part)}
        elif "Positional" not in hint and field.name != "metrics":  # parts, of which the parser knows those that a config gives
            names.add(field.name.replace("_", "-"))
            if field.type is bool or hint == "bool":
                names.add("no-" + field.name.replace("_", "-"))
    return names


DEFAULTS = {
    **{f"train with {kind.__name__}": Train("somewhere", Experiment(optimizer=kind())) for kind in Optimizer.__subclasses__()},
    "train a scaling study": Train("somewhere", Scaling()),
    "evaluate": Evaluate("somewhere"),
    "generate": Generate("somewhere"),
    "inspect": Inspect("somewhere"),
    "quickstart": Quickstart(),
    "prepare text": PrepareText("somewhere"),
}
