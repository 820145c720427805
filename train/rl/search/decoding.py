"""What a trained policy answers when its decoder spends more forward passes: several samples, beams, its critic, or a tree search.

`omnia evaluate RUN_DIR --decode KIND --passes N`. The environment scores complete responses in every kind, so that what differs is how the
passes are spent: N for each token of a response.
"""

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from data.errors import UserError
from model.decoding.beam import beam_search
from model.decoding.sampling import Sampling
from train.checkpoints.checkpointer import load_parameters
from train.devices.mesh import inference_mesh
from train.generation.text import decoder_of
from train.rl.environments.environment import Simulator
from train.rl.options import PolicyGradient, Prompts
from train.rl.policy.policy_gradient import critic_of
from train.rl.policy.questions import Question, Questions
from train.rl.policy.rollout import rollout
from train.rl.rewards.scoring import reward_models
from train.rl.search.token_readers import CachedReader
from train.rl.search.token_search import Decoded, Goal, best_first_decode, tree_search_decode, value_guided_decode
from train.runs.directory import Run
from train.step.state import Purpose, random_key
from train.step.update import compiler_options, on_mesh

Kind = Literal["sample", "best_of", "beam", "guided", "search", "best_first"]
"""sample: one response. best_of: the best of N. beam: the best of the N likeliest that beam search finds. guided: a token is sampled by the
critic's value of the text with it. search: it is chosen by a tree search of its own. best_first: one search from the prompt, with the
passes of all tokens, gives the best response that it comes upon."""


def measure_decoding(
    run: Run, kind: Kind, passes: int, *, considered: int = 16, count: int = 0, step: int | None = None, batch_size: int = 0
) -> dict:
    """Scores of `count` held-out prompts (0: all that the run keeps for validation). considered: tokens that a search chooses from.

    {"step", "decode", "score", "gold" (where scores only stand for it), "solved" (share of responses with a score of at least 1), "length",
    "passes" (a response took, on average), "prompts"}. UserError for a run that is no policy's, or whose policy lacks the critic.
    """
    experiment, o = run.experiment, run.experiment.objective
    if not isinstance(o, PolicyGradient) or not isinstance(experiment.data, Prompts):
        raise UserError(
            f"{run.path}: --decode needs a policy that was trained on reward", "Give a run with PPO, GRPO or another policy gradient."
        )
    if any(isinstance(environment, Simulator) for environment in experiment.data.environments):
        raise UserError(
            f"{run.path}: --decode works with single responses only, but an environment of the run replies", "Give another run."
        )
    if kind in WITH_CRITIC and o.critic == "none":
        raise UserError(f"{run.path}: --decode {kind} needs a critic, and {type(o).__name__} trained none", "Give a run of PPO.")
    if kind in WITH_CRITIC and any(reward_models(experiment.data.environments)):
        raise UserError(
            f"{run.path}: its reward is a trained model, and --decode {kind} asks for rewards from within a compiled program",
            "Use --decode best_of or beam.",
        )
    if passes < (fewest := 2 if kind in WITH_CRITIC else 1):
        raise UserError(f"--passes {passes} is too few for --decode {kind}", f"Give at least {fewest}.")
    mesh = inference_mesh(experiment.mesh)
    params, step = load_parameters(run, mesh, step=step)
    questions = Questions(experiment, run.corpora())
    count = count or experiment.evaluation.rows or experiment.data.validation
    size = min(batch_size or experiment.batch_size, count)
    decode = _decoder(run, questions, kind, passes, considered, mesh)
    found: dict[str, list] = {}
    for first in range(0, count, size):
        asked = questions.take(first, size, "validation")
        tokens_BS, prompts_B, lengths_B, passes_B = decode(params, asked, random_key(experiment.seed, first, Purpose.VALIDATION))
        measured = {"length": lengths_B - prompts_B, "passes": passes_B}
        measured |= _scores_of(questions, asked, tokens_BS, prompts_B, lengths_B, o.response_tokens)
        usable = np.array([question.environment >= 0 for question in asked]) & np.isfinite(measured["score"])
        for name, values in measured.items():
            found.setdefault(name, []).append(np.asarray(values)[usable][: count - first])
    values = {name: np.concatenate(arrays) for name, arrays in found.items()}
    if not len(values["score"]):
        raise UserError(f"{run.path}: no response to a validation prompt got a finite reward", "Check the reward.")
    means = {name: float(x.mean()) for name, x in values.items()}
    return {"step": step, "decode": kind, "solved": float((values["score"] >= 1).mean()), **means, "prompts": len(values["score"])}


def _scores_of(questions: Questions, asked: list[Question], tokens_BS, prompts_B, lengths_B, max_new_tokens: int) -> dict[str, np.ndarray]:
    """What environments say of rows of prompts and responses."""
    responses, mask = np.zeros((len(asked), max_new_tokens), np.int32), np.zeros((len(asked), max_new_tokens), np.float32)
    for row, (tokens, prompt, length) in enumerate(zip(tokens_BS, prompts_B, lengths_B, strict=True)):
        responses[row, : length - prompt], mask[row, : length - prompt] = tokens[prompt:length], 1
    mask, _ = questions.scored_mask(responses, mask)
    texts = questions.texts(asked, responses, mask)
    scores = questions.scores(asked, texts, responses, mask)
    found = {"score": scores if scores.ndim == 1 else scores.sum(1)}
    gold = questions.gold(asked, texts, responses, mask)
    return found if gold is None else found | {"gold": gold}


def _decoder(run: Run, questions: Questions, kind: Kind, passes: int, considered: int, mesh):
    """decode(params, questions, key) -> tokens_BS, lengths of prompts [B], of both [B], passes [B], on the host."""
    o = run.experiment.objective
    assert isinstance(o, PolicyGradient)
    scorer = _Scorer(questions, questions.transcriber.stop_ids if o.stop else (), o.response_tokens)
    if kind in WITH_CRITIC:
        decode = _critic_decoder(run, kind, passes, considered, scorer, mesh)
    else:
        decode = _candidate_decoder(run, kind, 1 if kind == "sample" else passes, scorer, mesh)

    def call(params, asked: list[Question], key):
        scorer.asked = asked
        padded, lengths = questions.pad(asked)
        tokens_BS, lengths_B, passes_B = decode(params, padded, lengths, key)
        scorer.raise_error()
        return tokens_BS, lengths, lengths_B, passes_B

    return call


class _Scorer:
    """The environment's scores of complete responses to `asked`, each of these several times in a row.

    stops: ids that end a response. max_new_tokens: its tokens at most.
    """

    def __init__(self, questions: Questions, stops: tuple[int, ...], max_new_tokens: int):
        self._questions, self.stops, self.max_new_tokens = questions, stops, max_new_tokens
        self.asked: list[Question] = []
        self._errors: list[UserError] = []

    def __call__(self, tokens_BS, prompts_B, lengths_B) -> np.ndarray:
        """float32 [B]: scores of the rows that are complete, 0 for others."""
        tokens_BS, prompts_B, lengths_B = (np.asarray(x) for x in (tokens_BS, prompts_B, lengths_B))
        last_B = tokens_BS[np.arange(len(lengths_B)), np.maximum(lengths_B - 1, 0)]
        response_B = lengths_B - prompts_B  # a search also asks of what goes on behind an end, for nothing
        complete_B = np.isin(last_B, self.stops) | (response_B == self.max_new_tokens)
        whole = np.flatnonzero((response_B > 0) & (response_B <= self.max_new_tokens) & complete_B)
        scores = np.zeros(len(lengths_B), np.float32)
        if len(whole):
            asked = [self.asked[row // (len(lengths_B) // len(self.asked))] for row in whole]
            try:
                found = _scores_of(self._questions, asked, tokens_BS[whole], prompts_B[whole], lengths_B[whole], self.max_new_tokens)
                scores[whole] = found["score"]
            except UserError as error:  # a compiled program that calls this would bury it
                self._errors.append(error)
        return np.nan_to_num(scores)

    def within_jit(self, tokens_BS, prompts_B, lengths_B):
        """The same, called from within a compiled program."""
        shape = jax.ShapeDtypeStruct(lengths_B.shape, jnp.float32)
        return jax.pure_callback(self, shape, tokens_BS, prompts_B, lengths_B, vmap_method="sequential")

    def raise_error(self) -> None:
        if self._errors:
            raise self._errors[0]


def _critic_decoder(run: Run, kind: Kind, passes: int, considered: int, scorer: _Scorer, mesh):
    """decode(params, padded_BP, lengths of prompts [B], key) -> tokens_BS, lengths_B, passes_B, by the critic and the scorer."""
    o = run.experiment.objective
    assert isinstance(o, PolicyGradient)
    model, critic, max_new_tokens = decoder_of(run), critic_of(o, run.experiment.model), scorer.max_new_tokens
    goal = Goal(scorer.stops, scorer.within_jit)

    def decode(params, prompts_BP, lengths_B, key) -> Decoded:
        where = {"prompts_BP": prompts_BP, "lengths_B": lengths_B, "key": key, "max_new_tokens": max_new_tokens}
        reader = CachedReader(model, critic, params)
        match kind:
            case "guided":
                return value_guided_decode(reader, goal, **where, considered=passes - 1)
            case "search":
                options = {"considered": considered, "max_num_considered_actions": considered}
                return tree_search_decode(reader, goal, **where, simulations=passes - 1, depth=min(max_new_tokens, DEPTH), **options)
            case "best_first":
                return best_first_decode(reader, goal, **where, expansions=passes * max_new_tokens - 1, considered=considered)
        raise ValueError(f"no decoder {kind!r}")

    jitted = _jitted(decode, mesh)

    def call(params, padded, lengths, key):
        left = np.stack([np.roll(row, length) for row, length in zip(padded, lengths, strict=True)])
        found = jax.device_get(jitted(params, left, lengths, key))
        return found.tokens_BS, found.lengths_B, found.passes_B

    return call


def _candidate_decoder(run: Run, kind: Kind, many: int, scorer: _Scorer, mesh):
    """As `_critic_decoder`, by choosing the best of `many` responses that are sampled, or that a beam search finds."""
    o = run.experiment.objective
    assert isinstance(o, PolicyGradient)
    model, max_new_tokens = decoder_of(run), scorer.max_new_tokens

    def candidates(params, padded_BP, lengths_B, key):
        """Rows [B, N, S], prompts on the right of their width, and the lengths of their responses [B, N]."""
        if kind == "beam":
            found = beam_search(model, params, padded_BP, lengths_B, beams=many, max_new_tokens=max_new_tokens, stop_ids=scorer.stops)
            return found.tokens_BWS, found.lengths_BW
        sampling, keys_N = Sampling(temperature=o.temperature, stop_ids=scorer.stops), jax.random.split(key, len(lengths_B) * many)
        sampled = rollout(model, params, padded_BP, lengths_B, keys_N, sampling, max_new_tokens=max_new_tokens, samples=many)
        return sampled.tokens_BS.reshape(len(lengths_B), many, -1), sampled.mask_BR.sum(1).astype(jnp.int32).reshape(-1, many)

    jitted = _jitted(candidates, mesh)

    def call(params, padded, lengths, key):
        tokens_BNS, lengths_BN = jax.device_get(jitted(params, padded, lengths, key))
        prompts_N = lengths.repeat(many)
        rows = zip(tokens_BNS.reshape(len(prompts_N), -1), padded.shape[1] - prompts_N, strict=True)
        tokens_NS, lengths_N = np.stack([np.roll(row, -start) for row, start in rows]), prompts_N + lengths_BN.reshape(-1)
        best_B = np.arange(len(lengths)) * many + scorer(tokens_NS, prompts_N, lengths_N).reshape(-1, many).argmax(1)
        # All beams take a pass for each token of the longest; samples end by themselves.
        passes_B = lengths_BN.max(1) * many if kind == "beam" else lengths_BN.sum(1)
        return tokens_NS[best_B], lengths_N[best_B], passes_B

    return call


def _jitted(function, mesh):
    return on_mesh(jax.jit(function, compiler_options=compiler_options(mesh.devices.flat[0].platform)), mesh)


WITH_CRITIC = ("guided", "search", "best_first")
DEPTH = 16
"""Tokens that a search looks ahead, at most."""
