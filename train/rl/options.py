"""What an experiment that learns from reward or preference is made of, beside what train/experiment.py has. Nothing heavy is imported."""

import dataclasses
import math
import os
from typing import ClassVar, Literal

from data.errors import UserError
from model.config import ModelConfig
from train.kinds import Data, Objective, check_range
from train.objectives.distillation import open_teacher
from train.rl.environments.environment import Environment, Simulator
from train.rl.environments.text_tasks import RandomWalks


@dataclasses.dataclass(frozen=True)
class Prompts(Data):
    """Prompts that a policy answers, and environments that score the answers."""

    home: ClassVar[str] = "train.sources.prompts:PromptDataset"
    rows: ClassVar[str] = "prompts"

    environments: tuple[Environment, ...] = (RandomWalks(),)
    """Sources of prompts; several are mixed."""
    weights: tuple[float, ...] = ()
    """Share of prompts from each environment, in any unit. Empty: equal."""
    validation: int = 256
    """Prompts held out for validation."""
    prompt_tokens: int = 32
    """Maximum tokens of a prompt. Longer ones are left out and counted."""
    reply_tokens: int = 32
    """Maximum tokens of a reply of the environment between two turns of the policy, its role and end tokens included."""
    max_unusable: int = 0
    """Prompts longer than prompt_tokens that are skipped before the run stops; each leaves an empty row."""

    def __post_init__(self):
        check_range("data.", self, 0, "max_unusable")
        check_range("data.", self, 1, "prompt_tokens", "reply_tokens", "validation")
        _check_mixture(self)


@dataclasses.dataclass(frozen=True)
class Demonstrations(Data):
    """Prompts with the responses that supervised fine-tuning imitates: what an environment shows, or JSONL files hold."""

    home: ClassVar[str] = "train.sources.demonstrations:DemonstrationDataset"
    rows: ClassVar[str] = "tokens"

    environments: tuple[Environment, ...] = (RandomWalks(),)
    """Sources of prompts and responses; several are mixed."""
    weights: tuple[float, ...] = ()
    """Share of rows from each environment, in any unit. Empty: equal."""
    validation: int = 256
    """Demonstrations held out for validation."""
    learn_prompts: bool = False
    """Learn to predict the tokens of prompts too, not those of responses alone."""

    def __post_init__(self):
        check_range("data.", self, 1, "validation")
        _check_mixture(self)


@dataclasses.dataclass(frozen=True)
class Preferences(Data):
    """Comparisons: prompts with responses and which of them is best."""

    home: ClassVar[str] = "train.sources.comparisons:ComparisonDataset"
    rows: ClassVar[str] = "comparisons"

    files: tuple[str, ...] = ()
    """JSONL files, or tfds:NAME, of {"prompt", "chosen", "rejected"} or {"prompt", "responses", "best", "scores"} (`omnia label`)."""
    weights: tuple[float, ...] = ()
    """Share of rows from each file, in any unit. Empty: by their numbers of comparisons."""
    validation: int = 256
    """Comparisons of each file held out for validation, at most a quarter of it."""

    def __post_init__(self):
        check_range("data.", self, 1, "validation")
        if self.weights and len(self.weights) != len(self.files):
            raise ValueError(f"data.weights is {self.weights}; give one for each of the {len(self.files)} files, or none")


def _check_mixture(data) -> None:
    if not data.environments:
        raise ValueError("data.environments is empty; name at least one in the config file")
    if data.weights and (len(data.weights) != len(data.environments) or not all(0 < weight < math.inf for weight in data.weights)):
        raise ValueError(f"data.weights is {data.weights}; give a positive one for each of {len(data.environments)} environments, or none")


@dataclasses.dataclass(frozen=True)
class RewardModelling(Objective):
    """A scalar that orders responses as people do (Ouyang et al. 2022, eq. 1), by Bradley and Terry's model of comparisons."""

    home: ClassVar[str] = "train.objectives.preference.reward_model:bind"
    reads: ClassVar[tuple[str, ...]] = ("comparisons",)

    loss: Literal["choice", "score"] = "choice"
    """choice: learn which response is best. score: learn the score of each response (squared error); the files must hold scores."""

    margin: float = 0.0
    """With choice: subtracted from the score difference of a pair before the log-sigmoid (Touvron et al. 2023, eq. 2), in units of score.
    0: none."""
    centre: float = 0.01
    """With choice: weight of the squared mean of a comparison's scores, which keeps scores near 0 (Eisenstein et al. 2023). 0: off."""

    @property
    def unit(self) -> Literal["token", "example", "batch"]:
        return "example"

    @property
    def by_score(self) -> bool:
        """Whether every score of the data is learned from."""
        return self.loss == "score"

    def __post_init__(self):
        check_range("objective.", self, 0, "margin", "centre")
        if self.loss == "score" and (self.margin or self.centre):
            raise ValueError("objective.margin and objective.centre belong to loss choice: set both to 0 with loss score")


@dataclasses.dataclass(frozen=True)
class PreferenceLearning(Objective):
    """A policy learned from comparisons alone, without sampling: DPO and its kin."""

    home: ClassVar[str] = "train.objectives.preference.preference:bind"
    reads: ClassVar[tuple[str, ...]] = ("comparisons",)
    generates: ClassVar[bool] = True

    loss: Literal["dpo", "ipo", "hinge", "kto", "orpo"] = "dpo"
    """Loss: DPO (Rafailov et al. 2023, eq. 7), IPO (Azar et al. 2023, eq. 17), hinge (Zhao et al. 2023), KTO (Ethayarajh et al. 2024, eq.
    8), ORPO (Hong et al. 2024)."""
    beta: float = 0.1
    """Weight of the KL penalty to the reference, above 0; with orpo, weight of the odds ratio."""
    label_smoothing: float = 0.0
    """With dpo: assumed share of wrong comparisons (conservative DPO, Mitchell 2023), 0 to below 0.5."""

    def __post_init__(self):
        check_range("objective.", self, 1e-9, "beta")
        check_range("objective.", self, 0, "label_smoothing", high=0.5)
        if self.label_smoothing and self.loss != "dpo":
            raise ValueError(f"objective.label_smoothing belongs to dpo; objective.loss is {self.loss}")

    @property
    def unit(self) -> Literal["token", "example", "batch"]:
        return "batch" if self.loss == "kto" else "example"


KL_COEFFICIENTS = (1e-6, 1e6)
"""Where an adaptive coefficient stays: one that reached 0 would stay there."""
Advantage = Literal["gae", "group", "leave_one_out", "returns", "best", "none"]


@dataclasses.dataclass(frozen=True)
class PolicyGradient(Objective):
    """Learning from the reward of the policy's own responses. The kinds below are settings of it, named after their papers."""

    home: ClassVar[str] = "train.rl.policy.policy_gradient:bind"
    learner: ClassVar[str] = "train.rl.policy.learner:PolicyLearner"
    unsound: ClassVar[str] = "tokens beyond objective.ratio_limit"
    reads: ClassVar[tuple[str, ...]] = ("prompts",)
    generates: ClassVar[bool] = True

    group_size: int = 1
    """Responses sampled for each prompt."""
    response_tokens: int = 64
    """Maximum tokens of a response; with environments that reply, of each turn."""
    slots: int = 0
    """Responses sampled at once (continuous batching): a slot whose response has ended takes the next prompt. 0: all of a batch at once."""
    temperature: float = 1.0
    """Sampling temperature, above 0. It divides the logits of policy and reference everywhere."""
    stop: bool = True
    """End responses at the end-of-document token. False: every response has response_tokens tokens."""
    cut_at: str = ""
    """With stop False: text of one token. Responses are scored up to their first such token at position cut_after or later. Empty: off."""
    cut_after: int = 0
    """With cut_at: first position, in tokens from 0, at which a cut_at token counts."""
    learn_behind_cut: bool = True
    """With cut_at: learn from the tokens behind the cut too (Ziegler et al. 2019). False: mask them (Huang et al. 2024)."""
    advantage: Advantage = "gae"
    """gae: from a critic (Schulman et al. 2016). group: score minus the group's mean. leave_one_out: score minus the mean of the group's
    other responses. returns: discounted sum of later rewards. best: 1 for the best response of a group, 0 for the others. none: rewards are
    not learned from, only the KL to the reference."""
    divide_by_std: bool = False
    """With advantage group: divide advantages by the group's standard deviation."""
    whiten: bool = True
    """Whiten advantages over the batch: mean 0, variance 1."""
    scale_scores: bool = False
    """Divide scores by the standard deviation of all scores so far, so that kl_coefficient does not depend on the unit of reward."""
    whiten_rewards: bool = False
    """Scale token rewards to variance 1 over the batch before computing advantages."""
    discount: float = 1.0
    """Discount factor for each token, 0 to 1."""
    turn_discount: float = 1.0
    """With environments that reply and advantage gae or returns: further discount factor from one turn of the policy to its next, 0 to 1.
    0: a turn is judged by what it earns itself."""
    gae_lambda: float = 0.95
    """Lambda of generalized advantage estimation, 0 to 1: 1 trusts rewards, 0 the critic."""
    epochs: int = 1
    """Passes over each batch of responses."""
    minibatches: int = 1
    """Minibatches, and so updates, in each epoch."""
    clip_low: float = 0.2
    """Lower clip range of PPO, 0 or more: no gradient at a negative advantage once the probability ratio is below 1 - clip_low."""
    clip_high: float = 0.2
    """Upper clip range of PPO, 0 or more: no gradient at a positive advantage once the probability ratio is above 1 + clip_high."""
    dual_clip: float = 0.0
    """Limit the loss of a token with a negative advantage to dual_clip times its size (Ye et al. 2020); above 1. 0: off."""
    sequence_ratio: bool = False
    """Use one ratio for a whole response: the geometric mean of its tokens' ratios (GSPO, Zheng et al. 2025)."""
    aggregate: Literal["token", "sequence_mean", "sequence_sum", "constant"] = "token"
    """token: mean over tokens. sequence_mean, sequence_sum: mean over responses of each one's mean or sum. constant: sum over all tokens,
    divided by responses times response_tokens."""
    kl_coefficient: float = 0.05
    """Weight of the KL penalty to the reference policy. 0: none, and no reference is kept."""
    kl_in: Literal["reward", "loss"] = "reward"
    """Where the KL penalty goes: subtracted from the token rewards, or added to the loss."""
    kl_estimator: Literal["k1", "k2", "k3", "exact"] = "k1"
    """KL from sampled tokens by estimator k1, k2 or k3 (Schulman 2020), or exact, over the whole vocabulary."""
    kl_divergence: Literal["reverse", "forward", "jensen_shannon"] = "reverse"
    """With kl_estimator exact in the loss: KL(policy || reference), KL(reference || policy), or the mean of both to their mean."""
    teacher: str = ""  # type: ignore[misc]
    """With kl_estimator exact in the loss: run directory of another model that is the reference, instead of the run that this one starts
    from."""
    teacher_model: tuple[ModelConfig, ...] = ()
    """The teacher's model. Filled in when the run is made."""
    reference: Literal["copy", "bfloat16", "host"] = "copy"
    """How the reference policy is kept: an unchanged copy, a bfloat16 copy, or a copy in host memory between its uses."""
    kl_target: float = 0.0
    """With kl_in reward: adapt kl_coefficient to reach this KL, in nats per response (Ziegler et al. 2019). 0: keep it fixed."""
    kl_horizon: float = 10_000.0
    """With kl_target: responses over which the coefficient adapts, 1 or more; values below the batch size count as the batch size."""
    entropy_coefficient: float = 0.0
    """Weight of the entropy bonus. 0: off."""
    critic: Literal["none", "shared", "branch", "separate"] = "none"
    """What predicts values: nothing, a head on the policy's trunk, a copy of its last layers, or a separate model."""
    critic_layers: int = 1
    """With critic branch: number of last layers that are copied."""
    critic_detached: bool = False
    """With critic shared: stop the critic's gradient at its head."""
    critic_warmup: int = 0
    """First steps in which only the critic learns."""
    value_coefficient: float = 0.1
    """Weight of the value loss."""
    value_clip: float = 0.2
    """How far a value may move from its old prediction before the value loss is clipped, in units of reward. 0: no clip."""
    missing_stop: Literal["keep", "replace", "subtract"] = "keep"
    """Score of a response without a stop token (or cut_at token): keep it, replace it by -missing_stop_score, or subtract
    missing_stop_score."""
    missing_stop_score: float = 1.0
    """With missing_stop replace or subtract: the penalty, in units of reward, 0 or more."""
    drop_equal_groups: bool = False
    """Drop groups whose scores are all equal and sample other prompts instead (DAPO, Yu et al. 2025, sec. 3.2)."""
    most_draws: int = 3
    """With drop_equal_groups: maximum rounds of sampling in a step; rows still missing after them stay empty."""
    ratio_limit: float = 10.0
    """Skip a minibatch as a bad step where a token with a negative advantage has a probability ratio above this, above 1."""

    def __post_init__(self):
        check_range("objective.", self, 1, "group_size", "response_tokens", "epochs", "minibatches", "critic_layers", "most_draws")
        check_range("objective.", self, 1e-6, "temperature")
        check_range(
            "objective.", self, 0, "clip_low", "clip_high", "kl_coefficient", "kl_target", "entropy_coefficient", "critic_warmup", "slots"
        )
        check_range("objective.", self, 0, "value_coefficient", "value_clip", "missing_stop_score")
        check_range("objective.", self, 0, "discount", "turn_discount", "gae_lambda", high=math.nextafter(1.0, 2.0))
        check_range("objective.", self, 1, "kl_horizon")
        check_range("objective.", self, 1 + 1e-6, "ratio_limit")
        if self.dual_clip and not self.dual_clip > 1:
            raise ValueError(f"objective.dual_clip is {self.dual_clip}; it must be above 1, or 0 for none")
        if (self.advantage == "gae") != (self.critic != "none"):
            raise ValueError(
                f"objective.advantage is {self.advantage} and objective.critic {self.critic}: gae needs a critic, others take none"
            )
        if self.turn_discount < 1 and self.advantage not in ("gae", "returns"):
            raise ValueError(f"objective.turn_discount needs advantage gae or returns; objective.advantage is {self.advantage}")
        if self.advantage in ("group", "leave_one_out", "best") and self.group_size < 2:
            raise ValueError(
                f"objective.advantage {self.advantage} compares the responses to a prompt; objective.group_size is {self.group_size}"
            )
        if self.drop_equal_groups and self.group_size < 2:
            raise ValueError(f"objective.drop_equal_groups needs groups; objective.group_size is {self.group_size}")
        if self.slots % self.group_size:
            raise ValueError(f"objective.slots is {self.slots}; it must be a multiple of objective.group_size, {self.group_size}")
        if self.kl_target and not (self.kl_coefficient and self.kl_in == "reward"):
            raise ValueError(
                "objective.kl_target adapts the coefficient of a KL in the reward: set kl_in reward and a kl_coefficient to start from"
            )
        if self.kl_target and not KL_COEFFICIENTS[0] <= self.kl_coefficient <= KL_COEFFICIENTS[1]:
            low, high = KL_COEFFICIENTS
            raise ValueError(f"objective.kl_coefficient is {self.kl_coefficient}; with a kl_target it stays within {low:g} and {high:g}")
        if (self.teacher or self.kl_divergence != "reverse" or self.advantage == "none") and not reads_reference(self):
            name = "teacher" if self.teacher else "advantage none" if self.advantage == "none" else f"kl_divergence {self.kl_divergence}"
            raise ValueError(
                f"objective.{name} needs the whole predictions of a reference: set kl_in loss, kl_estimator exact, kl_coefficient"
            )
        if self.stop and self.cut_at:
            raise ValueError("objective.cut_at needs responses without a stop token: set objective.stop False, or leave cut_at out")
        if not self.cut_at and (self.cut_after or not self.learn_behind_cut):
            raise ValueError("objective.cut_after and objective.learn_behind_cut need objective.cut_at, which is empty")
        if not 0 <= self.cut_after < self.response_tokens:
            raise ValueError(
                f"objective.cut_after is {self.cut_after}; it must be at least 0 and below response_tokens, {self.response_tokens}"
            )
        if self.missing_stop != "keep" and not (self.stop or self.cut_at):
            raise ValueError("objective.missing_stop needs responses that can end: set objective.stop, or give objective.cut_at")

    def completed(self, sources: list) -> "PolicyGradient":
        if not self.teacher or self.teacher_model:
            return self
        model = open_teacher(self.teacher, sources).model
        return dataclasses.replace(self, teacher=os.path.abspath(self.teacher), teacher_model=(model,))


@dataclasses.dataclass(frozen=True)
class PPO(PolicyGradient):
    """Proximal policy optimisation with a critic (Schulman et al. 2017; for language models Ziegler et al. 2019, Ouyang et al. 2022)."""

    epochs: int = 4
    minibatches: int = 1
    critic: Literal["none", "shared", "branch", "separate"] = "separate"


@dataclasses.dataclass(frozen=True)
class GRPO(PolicyGradient):
    """Group-relative policy optimisation (Shao et al. 2024, eq. 3): no critic, the group's mean is the baseline, KL in the loss."""

    group_size: int = 8
    advantage: Advantage = "group"
    divide_by_std: bool = True
    whiten: bool = False
    aggregate: Literal["token", "sequence_mean", "sequence_sum", "constant"] = "sequence_mean"
    kl_coefficient: float = 0.04
    kl_in: Literal["reward", "loss"] = "loss"
    kl_estimator: Literal["k1", "k2", "k3", "exact"] = "k3"


@dataclasses.dataclass(frozen=True)
class DrGRPO(GRPO):
    """GRPO without its two biases (Liu et al. 2025): no standard deviation, no lengths in the denominators."""

    divide_by_std: bool = False
    aggregate: Literal["token", "sequence_mean", "sequence_sum", "constant"] = "constant"
    kl_coefficient: float = 0.0


@dataclasses.dataclass(frozen=True)
class DAPO(GRPO):
    """GRPO with room to grow, averaged over tokens, without groups that say nothing (Yu et al. 2025)."""

    clip_high: float = 0.28
    aggregate: Literal["token", "sequence_mean", "sequence_sum", "constant"] = "token"
    kl_coefficient: float = 0.0
    drop_equal_groups: bool = True


@dataclasses.dataclass(frozen=True)
class GSPO(GRPO):
    """GRPO with one ratio for a whole response (Zheng et al. 2025)."""

    clip_low: float = 3e-4
    clip_high: float = 4e-4
    sequence_ratio: bool = True
    kl_coefficient: float = 0.0


@dataclasses.dataclass(frozen=True)
class RLOO(PolicyGradient):
    """REINFORCE with the mean of a prompt's other responses as its baseline (Ahmadian et al. 2024)."""

    group_size: int = 4
    advantage: Advantage = "leave_one_out"
    whiten: bool = False
    aggregate: Literal["token", "sequence_mean", "sequence_sum", "constant"] = "sequence_sum"


@dataclasses.dataclass(frozen=True)
class ReinforcePlusPlus(PolicyGradient):
    """PPO's clipping and KL in the reward, but the whitened reward still to come instead of a critic (Hu 2025)."""

    advantage: Advantage = "returns"


@dataclasses.dataclass(frozen=True)
class ExpertIteration(PolicyGradient):
    """Imitation of the best of several responses of one's own (best-of-n distilled: Anthony et al. 2017; Dong et al. 2023, RAFT).

    With one epoch of one minibatch the gradient is, but for its length, that of supervised fine-tuning on those responses. A group of equal
    scores shows nothing.
    """

    group_size: int = 8
    advantage: Advantage = "best"
    whiten: bool = False
    kl_coefficient: float = 0.0


@dataclasses.dataclass(frozen=True)
class OnPolicyDistillation(PolicyGradient):
    """The student writes, and learns how its teacher would have gone on at each of its tokens (GKD, Agarwal et al. 2024). Rewards are
    measured, and not learned from."""

    advantage: Advantage = "none"
    whiten: bool = False
    kl_coefficient: float = 1.0
    kl_in: Literal["reward", "loss"] = "loss"
    kl_estimator: Literal["k1", "k2", "k3", "exact"] = "exact"

    def completed(self, sources: list) -> "PolicyGradient":
        if not self.teacher:
            raise UserError("objective OnPolicyDistillation: there is no teacher", "Give its run: --objective.teacher RUN.")
        return super().completed(sources)


def reads_reference(o: PolicyGradient) -> bool:
    """Whether the objective runs the reference itself, and is not content with its log-probabilities."""
    return o.kl_coefficient > 0 and o.kl_in == "loss" and o.kl_estimator == "exact"


def turns_of(environments: tuple[Environment, ...]) -> int:
    """Turns of the policy in a response, at most, in any of them."""
    return max(environment.turns if isinstance(environment, Simulator) else 1 for environment in environments)


def response_length(data: Prompts, objective: PolicyGradient) -> int:
    """Tokens after a prompt, at most: of all turns, and the replies between them."""
    turns = turns_of(data.environments)
    return turns * objective.response_tokens + (turns - 1) * data.reply_tokens
