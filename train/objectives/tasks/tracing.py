"""Whether a student's next answer is right, by a decoder that reads answers (after Piech et al. 2015, DKT; Pandey and Karypis 2019)."""

import dataclasses
import zlib
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp

from data.errors import UserError
from model.config import ModelConfig
from model.layers import Dense, Table
from train.experiment import Experiment
from train.kinds import Bound, Objective, realise
from train.objectives.terms import Term
from train.objectives.text.checks import tokens_of
from train.objectives.text.corruption import row_keys
from train.tasks.tracing import BEFORE


@dataclasses.dataclass(frozen=True)
class NextAnswer(Objective):
    """The probability that the next answer is right, for every skill that it may be about."""

    home: ClassVar[str] = ":bind"
    reads: ClassVar[tuple[str, ...]] = ("answers",)
    of_texts: ClassVar[bool] = False

    skills: tuple[str, ...] = ()
    """Names of the skills; the first stands for all others. Empty: those of the data."""

    @property
    def unit(self) -> Literal["token", "example", "batch"]:
        return "token"

    def completed(self, sources: list) -> "NextAnswer":
        return self if self.skills else dataclasses.replace(self, skills=sources[0].dataset.skills())


@dataclasses.dataclass(frozen=True)
class NextAnswerLoss:
    """batch: AnswerBatch. Term `loss`: nats per answer. Parameters: the decoder's; asked/table [S, D], of the skill that is asked for;
    asked/bias [S]; mixed: of a state and a skill together, to D; number: from that to one number."""

    model: Any
    options: NextAnswer

    def start(self, key):
        """Fresh parameters, boxed with logical axis names."""
        c, size = self.model.config, len(self.options.skills)
        keys = iter(jax.random.split(jax.random.fold_in(key, 1), 3))
        own = {name: part for name, part in self.model.start(key).items() if name != "head"}
        asked = Table(size, c.embed_dim, ("vocab", "embed"), c.init_std).init(next(keys))["params"]
        mixed = _mixing(c).init(next(keys), jnp.zeros((1, c.embed_dim)))["params"]
        to_one = _number(c).init(next(keys), jnp.zeros((1, c.embed_dim)))["params"]
        return own | {"asked": asked | {"bias": jnp.zeros(size)}, "mixed": mixed, "number": to_one}

    def states(self, params, batch, key):
        """float32 [B, T, D]."""
        keys_B = None if key is None else row_keys(key, batch.rows)[1]
        own = {name: part for name, part in params.items() if name not in _BESIDE}
        where = {"segments_BT": batch.segments, "positions_BT": batch.positions, "keys_B": keys_B}
        return self.model.apply({"params": own}, batch.tokens, **where).hidden_BTD

    def scores(self, params, hidden_XD, skill_X):
        """Logits [...] that an answer to a skill is right, in a state."""
        c = self.model.config
        asked_XD = params["asked"]["table"][skill_X]
        mixed_XD = jax.nn.gelu(_mixing(c).apply({"params": params["mixed"]}, hidden_XD) + asked_XD)
        plain_X = (hidden_XD * asked_XD).sum(-1) + params["asked"]["bias"][skill_X]
        return plain_X + _number(c).apply({"params": params["number"]}, mixed_XD)[..., 0]

    def _logits(self, params, batch, key):
        hidden_BTD = self.states(params, batch, key)
        read_BTD = jnp.take_along_axis(hidden_BTD, batch.reads[..., None], axis=1)
        return self.scores(params, read_BTD, batch.skills)

    def __call__(self, params, batch, key, *, frozen=None, carry=None):
        logits_BT = self._logits(params, batch, key)
        nll_BT = jax.nn.softplus(jnp.where(batch.correct > 0.5, -logits_BT, logits_BT))
        terms = {"loss": Term(1.0, (nll_BT * batch.weights).sum(), batch.weights.sum())}
        return terms, {"tokens": tokens_of(batch)}, carry

    def outputs(self, params, batch):
        """{"probability", "correct", "weights" [B, T]; "every" [B, S]: of each skill, behind the last place of a row; "rows" [B]}."""
        hidden_BTD = self.states(params, batch, None)
        read_BTD = jnp.take_along_axis(hidden_BTD, batch.reads[..., None], axis=1)
        last_B = jnp.maximum((batch.segments > 0).sum(1) - 1, 0)
        hidden_BD = jnp.take_along_axis(hidden_BTD, last_B[:, None, None], axis=1)[:, 0]
        skills_S = jnp.arange(len(self.options.skills))
        shape = (hidden_BD.shape[0], len(self.options.skills))
        every_BSD = jnp.broadcast_to(hidden_BD[:, None], (*shape, hidden_BD.shape[-1]))
        every_BS = jax.nn.sigmoid(self.scores(params, every_BSD, jnp.broadcast_to(skills_S, shape)))
        probability_BT = jax.nn.sigmoid(self.scores(params, read_BTD, batch.skills))
        return {"probability": probability_BT, "correct": batch.correct, "weights": batch.weights, "every": every_BS, "rows": batch.rows}


_BESIDE = ("asked", "mixed", "number")
"""Parameters that are not the decoder's."""


def _mixing(config):
    return Dense((config.embed_dim,), ("embed", "norm"), config.init_std, jnp.dtype(jnp.float32), bias=False)


def _number(config):
    return Dense((1,), ("embed", "norm"), config.init_std, jnp.dtype(jnp.float32), bias=False)


def bind(options: NextAnswer, experiment: Experiment, shards: int) -> Bound:
    if type(experiment.model) is not ModelConfig:
        raise UserError("objective NextAnswer needs a decoder", "Choose a ModelConfig in the config file.")
    model = realise(dataclasses.replace(experiment.model, vocab_size=BEFORE + 2 * max(len(options.skills), 1)))
    loss = NextAnswerLoss(model, options)
    # Named by the skills, so that no run takes over what was learned of as many others: an answer's token is one of a skill.
    skills = f"skills ({len(options.skills)}, {zlib.crc32(chr(10).join(options.skills).encode()):08x})"
    parts = {name: path for name, path in model.parts().items() if name not in ("embedding", "head")}
    parts |= {f"answers to {skills}": ("embedding",), skills: ("asked",)}
    parts |= {f"states mixed with {skills}": ("mixed",), f"number of states mixed with {skills}": ("number",)}
    return Bound(loss, start=loss.start, parts=parts, outputs=loss.outputs)
