"""An audit of a run: its gradient method, loss, parameters and data's shapes, with canaries as units."""

import math
from typing import Any

from data.errors import UserError
from data.files import json_files
from train.checkpoints.checkpointer import load_trained
from train.devices.mesh import inference_mesh
from train.objectives.bind import bind_trained
from train.privacy.audit import Mechanism, audit
from train.runs.directory import PRIVACY, Run
from train.runs.start import frozen_of
from train.sources.dataset import dataset_of


def audit_run(run: Run, canaries: int) -> dict[str, Any]:
    """{"passed", "epsilon_audited", "epsilon_claimed_step", "canaries", "checks": {name: {"found", "allowed", "what", "passed"}}} and what
    the run says it cost: "epsilon", None where that is infinite, "delta" and "steps"."""
    place = run.path / PRIVACY
    if not place.is_file():
        raise UserError(f"{run.path}: has not trained to its end, where {PRIVACY} is written", "Resume it.")
    facts = json_files.read(place, "The run is damaged: train it again.", dict)
    mesh = inference_mesh(run.experiment.mesh)
    params = load_trained(run, mesh, raw=True)[0]
    mechanism = Mechanism(run.experiment, bind_trained(run.experiment), params, dataset_of(run.experiment), frozen_of(run, mesh))
    checks, found, claimed = audit(mechanism, canaries)
    return {
        "passed": all(check.passed for check in checks) and found <= claimed,
        "epsilon_audited": found,
        "epsilon_claimed_step": claimed if math.isfinite(claimed) else None,
        "canaries": canaries,
        "checks": {
            check.name: {"found": check.found, "allowed": list(check.allowed), "what": check.what, "passed": check.passed}
            for check in checks
        },
        "epsilon": facts["epsilon_pld"],
        "delta": facts["delta"],
        "steps": facts["steps"],
    }
