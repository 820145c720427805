"""Which parts of a model a run trains, and where they stand among its parameters: so that a run can start from another of another kind."""

from typing import Any

from model.media.omni_config import OmniConfig
from train.experiment import Experiment
from train.sources import media_options as options
from train.rl.options import PolicyGradient, RewardModelling

Path = tuple[str, ...]

DECODER = ("embedding", "positions", "layers", "final_norm", "head")
"""The names of a decoder's parameters; others may stand beside them."""


def parts_of(experiment: Experiment) -> dict[str, Path]:
    """Where each part stands: the decoder's, by their own names, and "image encoder", "image projector" and so on."""
    o, model = experiment.objective, experiment.model
    decoder: dict[str, Path] = {name: (name,) for name in DECODER}
    match o:
        case options.Alignment():
            return tower_parts(o) | _space_parts(o)
        case options.MediaClassification():
            return {f"{o.medium} encoder": ("tower", "encoder")}
        case options.HiddenPatches():
            return {f"{o.medium} encoder": ("encoder",)}
        case options.Codebook():
            return {}
    kinds = [encoder.kind for encoder in model.encoders] if isinstance(model, OmniConfig) else []
    found = (
        decoder
        | _critic_parts(o)
        | {f"{kind} {part}": (kind, part) for kind in kinds for part in ("encoder", "projector")}
        | {"cross": ("cross",)}
    )
    if isinstance(o, options.AlignedLM):
        found |= {name: ("alignment", *path) for name, path in _space_parts(o).items()}
    return found


HEAD = "scalar head on the decoder"


def _critic_parts(o) -> dict[str, Path]:
    """Where a critic's parts stand, or a reward model's: the same only where they read the same hidden states."""
    if isinstance(o, RewardModelling):
        return {HEAD: ("value",)}
    if not isinstance(o, PolicyGradient) or o.critic == "none":
        return {}
    if o.critic == "shared":
        return {HEAD: ("value",)}
    name = "critic" if o.critic == "separate" else f"critic on the last {o.critic_layers} layers"
    return {name: ("critic",), f"scalar head of the {name}": ("value",)}


def _space_parts(pairing: options.Pairing) -> dict[str, Path]:
    """Where the rest of a Contrastive's parameters stand: of the same space only if it is the same pairing."""
    names: list[Path] = [(side, part) for side in ("left", "right") for part in ("pool", "projection")] + [("log_scale",), ("bias",)]
    space = f"{pairing.loss} space of {pairing.left} and {pairing.right}, {pairing.width} wide"
    return {f"{space}: {' '.join(path)}": path for path in names}


def tower_parts(pairing: options.Pairing) -> dict[str, Path]:
    """Where the towers' encoders and decoder stand among the parameters of a Contrastive."""
    found: dict[str, Path] = {f"{pairing.left} encoder": ("left", "encoder")}
    if pairing.right == "text":
        return found | {name: ("right", "decoder", name) for name in DECODER}
    return found | {f"{pairing.right} encoder": ("right", "encoder")}


def get(params, path: Path) -> Any:
    """What stands there; None where nothing does."""
    for name in path:
        if name not in params:
            return None
        params = params[name]
    return params


def put(params, path: Path, part):
    """The parameters with `part` at that path, which is made where it is missing."""
    name, *rest = path
    return dict(params) | {name: put(params.get(name, {}), tuple(rest), part) if rest else part}


def without(params, path: Path):
    """The parameters but for what stands there, and for what then holds nothing."""
    name, *rest = path
    left = without(params[name], tuple(rest)) if rest and name in params else {}
    return {key: value for key, value in params.items() if key != name} | ({name: left} if left else {})
