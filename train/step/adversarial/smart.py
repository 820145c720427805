"""Answers that hardly move under small perturbations: SMART (Jiang et al. 2020) and virtual adversarial training (Miyato et al. 2018)."""

import jax

from data.errors import UserError
from train.experiment import Experiment
from train.step.adversarial.options import SMART
from train.step.adversarial.perturbation import Contrast, direction, noise, segments_of, table_width
from train.step.gradients import in_parts, plain


def smart(options: SMART, experiment: Experiment, unit: str):
    """The worst direction is found by power iteration on the divergence (Miyato et al. 2018, eq. 12). Metric: divergence."""
    width = table_width(experiment)
    if not type(experiment.objective).contrasted or unit != "example":
        raise UserError(
            "gradient SMART compares answers text by text; this objective has none such", "Use FGM or FreeLB, or a task without mixup."
        )
    if getattr(experiment.objective, "r_drop", 0):
        raise UserError("gradient SMART and objective.r_drop both compare answers of two passes", "Leave --objective.r-drop at 0.")

    def whole(objective, params, batch, key, *, weights=None, frozen=None, carry=None):
        segments_BT = segments_of(batch)

        def contrast(shift_BTW):
            return batch._replace(shift=Contrast(shift_BTW, options.weight, options.symmetric))

        def divergence(shift_BTW):
            return objective(params, contrast(shift_BTW), key, frozen=frozen, carry=carry)[0]["divergence"].total

        shift_BTW = direction(noise(jax.random.normal, batch, key, width), segments_BT)
        for _ in range(options.steps):
            shift_BTW = direction(jax.grad(divergence)(options.probe * shift_BTW), segments_BT)
        moved = contrast(options.epsilon * jax.lax.stop_gradient(shift_BTW))
        if weights is not None:  # a divergence weighs what the loss does
            weights = weights | {"divergence": weights["loss"]}
        return plain(objective, params, moved, key, weights=weights, frozen=frozen, carry=carry)

    return in_parts(whole, experiment, unit)
