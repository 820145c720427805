"""Next-token prediction with a memory of the rows before."""

import dataclasses

import flax.linen as nn
import jax

from data.errors import UserError
from model.stack import no_memory
from train.experiment import Experiment
from train.kinds import Bound, realise
from train.objectives.text.causal_lm import CausalLMLoss
from train.objectives.text.checks import check_continues
from train.objectives.text.options import RecurrentLM


@dataclasses.dataclass(frozen=True)
class RecurrentLMLoss(CausalLMLoss):
    """`CausalLMLoss` whose carry is what the rows before left (`stack.Remembered`): row i of a batch goes on from row i of the last."""

    options: RecurrentLM

    def __call__(self, params, batch, key, *, frozen=None, carry=None):
        limit = self.options.evaluation_limit if key is None else 0
        model = realise(dataclasses.replace(self.model.config, distance_limit=limit)) if limit else self.model
        output = dataclasses.replace(self, model=model).read(params, batch, key, memory=carry)
        return *self.score(params, batch, output), output.cache


def bind(options: RecurrentLM, whole: Experiment, shards: int) -> Bound:
    check_continues(options, whole)
    model = realise(whole.model)
    if whole.micro_batches > 1:
        raise UserError("objective: a memory is of all rows of a batch, which --micro-batches takes apart", "Set --micro-batches 1.")
    if whole.model.positions not in ("distance", "relative"):
        raise UserError(
            f"objective: a memory needs positions that are distances; model.positions are {whole.model.positions}",
            "Choose distance, or relative, in the config file.",
        )
    if options.evaluation_limit and whole.model.positions != "distance":
        raise UserError("objective.evaluation_limit is of model.positions distance", "Leave it 0.")
    if whole.model.scan:
        raise UserError("objective: with a memory, layers run one by one", "Leave model.scan out.")

    def memory(rows: int):
        return no_memory(whole.model, rows, options.evaluation_memory or options.memory)

    axes = {3: ("batch", None, "residual"), 2: ("batch", None)}
    carry = no_memory(whole.model, whole.batch_size, options.memory)
    carry = jax.tree.map(lambda leaf: nn.LogicallyPartitioned(leaf, axes[leaf.ndim]), carry)
    return Bound(RecurrentLMLoss(model, options, shards), start=model.start, parts=model.parts(), carry=carry, evaluation_carry=memory)
