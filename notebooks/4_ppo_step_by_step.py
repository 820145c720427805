# %% [markdown]
# # 4. PPO, step by step
#
# Learning from reward, one array at a time. The task is tiny: sort five digits. A model that has seen few demonstrations sorts
# badly; then it learns from nothing but the scores of its own answers. The functions called here are pure, and training calls
# the same ones.

# %%
import functools
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from model import ModelConfig, Sampling
from train import PPO, AdamW, Demonstrations, Evaluation, Experiment, Letters, Logging, Prompts, Questions, Samples, Schedule
from train import bind, clipped_loss, critic_of, evaluate_rollout, fresh_state, generalized_advantages, learner_of, make_learn
from train import make_mesh, new_run, realise, rollout, row_keys, scores_by_token, start_parameters, train, update_of, whiten

work = Path(tempfile.mkdtemp(prefix="omnia-"))
task, PROMPT, RESPONSE, ROWS = Letters("sort", length=5), 7, 6, 256

# %% [markdown]
# ## A model that answers, but badly

# %%
size = ModelConfig(context_length=13, num_layers=2, embed_dim=64, num_heads=4, norm="rmsnorm", positions="rotary", bias=False)
quiet = {"evaluation": Evaluation(every=0), "samples": Samples(tokens=0), "logging": Logging(every=40)}
quiet |= {"model": size, "schedule": Schedule(warmup_steps=10)}
imitation = Experiment(steps=100, batch_size=64, data=Demonstrations(environments=(task,)), optimizer=AdamW(learning_rate=3e-3), **quiet)
start = new_run(work / "start", imitation)
summary = train(start)

# %% [markdown]
# ## A policy, its critic and its reference
#
# The *policy* starts from that model. The *critic*, a second network, predicts how much reward is still to come. The *reference*
# is the model as it was: the policy pays for moving away from it.

# %%
options = PPO(response_tokens=RESPONSE, kl_coefficient=0.02, epochs=2, minibatches=2)
prompts = Prompts(environments=(task,), prompt_tokens=PROMPT)
optimizer = AdamW(learning_rate=2e-3, weight_decay=0.0)
policy = new_run(
    work / "policy",
    Experiment(steps=40, batch_size=ROWS, start=str(start.path), data=prompts, objective=options, optimizer=optimizer, **quiet),
)
experiment, mesh = policy.experiment, make_mesh(policy.experiment.mesh)
learner = learner_of(policy, policy.corpora(), mesh)
state, reference = fresh_state(learner, mesh, experiment.seed, ema=False), start_parameters(policy, mesh)
model, critic, questions = realise(experiment.model), critic_of(options, experiment.model), Questions(experiment, policy.corpora())

# %% [markdown]
# ## 1. Rollout: the policy answers
#
# One call samples an answer to every prompt and keeps the log-probability of each token. An answer ends with a stop token (`$`
# below), which counts: a policy has to learn when to stop. What lies behind it is masked.

# %%
sampling = Sampling(stop_ids=(questions.end,))
sample = jax.jit(functools.partial(rollout, model, sampling=sampling, max_new_tokens=RESPONSE, samples=1))


def answer(params, first: int):
    """Answers to the prompts from number `first` on, as arrays and as text, and their scores."""
    asked = questions.take(first, ROWS)
    keys = row_keys(jax.random.key(0), jnp.array([question.row for question in asked]), 1)
    sampled = sample(params, *questions.pad(asked), keys)
    responses, mask = np.asarray(sampled.responses_BR), np.asarray(sampled.mask_BR)
    texts = questions.texts(asked, responses, mask)
    return sampled, texts, questions.scores(asked, texts, responses, mask)


def show(title: str, values_BR, sampled, **colours):
    """An array of the first answers, each cell a token; what is masked stays white."""
    shown, axes = np.ma.masked_where(np.asarray(sampled.mask_BR) == 0, np.asarray(values_BR))[:8], plt.figure(figsize=(5.5, 3)).gca()
    plt.colorbar(axes.imshow(shown, aspect="auto", **colours))
    for (row, place), token in np.ndenumerate(np.asarray(sampled.responses_BR)[:8]):
        letter = "$" if token == questions.end else questions.tokenizer.decode([int(token)]) or "?"
        if sampled.mask_BR[row, place]:
            axes.text(place, row, letter, ha="center", va="center", bbox={"color": "white", "alpha": 0.6, "boxstyle": "circle,pad=0.1"})
    axes.set(yticks=range(8), yticklabels=[question.prompt.text for question in questions.take(0, 8)])
    axes.set(xticks=range(RESPONSE), xlabel="token of the answer", title=title)
    plt.show()


sampled, before, scores = answer(state.params, 0)
show("log-probability of each sampled token", sampled.log_probs_BR, sampled, cmap="viridis")

# %% [markdown]
# ## 2. Rewards
#
# The task scores a whole answer: here, by the share of digits in their place. The score is the reward of the last token. Every
# token pays for its distance from the reference. At the start the policy is the reference, so nothing is paid yet.

# %%
evaluate = jax.jit(functools.partial(evaluate_rollout, model, critic, options, again=True, shards=1))
estimates = evaluate(state.params, reference, sampled)
mask_BR = sampled.mask_BR
rewards_BR = scores_by_token(scores, sampled.stopped_B, mask_BR, options) - options.kl_coefficient * estimates.kl
print(f"mean score {scores.mean():.3f}, mean KL of an answer {float(estimates.kl.sum(1).mean()):z.5f} nats")
show("reward of each token", rewards_BR, sampled, cmap="Greens", vmin=0, vmax=1)

# %% [markdown]
# ## 3. Advantages
#
# Which tokens earned the reward? Generalised advantage estimation passes it back from the end, less what the critic expected:
# nothing yet, its values are all 0. *Whitening* sets the mean of the batch to 0 and its deviation to 1: blue is better than
# average.

# %%
how = {"discount": options.discount, "gae_lambda": options.gae_lambda}
advantages_BR, returns_BR = generalized_advantages(rewards_BR, estimates.values, mask_BR, **how)
whitened_BR = whiten(advantages_BR, mask_BR)
show("advantage of each token, whitened", whitened_BR, sampled, cmap="RdBu", vmin=-3, vmax=3)

# %% [markdown]
# ## 4. The clipped loss
#
# The loss compares a token's new probability with the one it was sampled with. Once the ratio has moved far enough in the wanted
# direction, the loss is flat: nothing is gained by moving further in this step.

# %%
ratio = jnp.linspace(0.5, 2.0, 200)
plt.figure(figsize=(5, 2.6), layout="constrained")
for advantage in (1.0, -1.0):
    loss = clipped_loss(jnp.log(ratio), advantage, low=options.clip_low, high=options.clip_high)
    plt.plot(ratio, loss, label=f"advantage {advantage:+.0f}")
plt.gca().set(xlabel="new / old probability", ylabel="loss of a token")
plt.legend()
plt.show()

# %% [markdown]
# ## 5. Update
#
# `learn` does steps 2 to 4 again and takes a few gradient steps on minibatches. Then some tokens are likelier and others less:
# on average those with a positive and those with a negative advantage. The grey range is not clipped.

# %%
learn = jax.jit(make_learn(update_of(experiment, bind(experiment), learner.optimizer), options, experiment.seed, ROWS))
everything_B = jnp.ones(ROWS)
new_state, metrics = learn(state, None, sampled, estimates._replace(policy=None), jnp.asarray(scores), everything_B)
ratio_BR = jnp.exp(evaluate(new_state.params, reference, sampled).policy - sampled.log_probs_BR)
chosen = np.asarray(mask_BR) > 0
plt.figure(figsize=(5, 2.8), layout="constrained")
plt.scatter(np.asarray(whitened_BR)[chosen], np.asarray(ratio_BR)[chosen], s=4, alpha=0.4)
plt.axhspan(1 - options.clip_low, 1 + options.clip_high, color="grey", alpha=0.2)
plt.gca().set(xlabel="advantage of a token", ylabel="new / old probability")
plt.show()

# %% [markdown]
# ## All together
#
# The same calls, again and again, each time with new prompts. `train(policy)` does this, with checkpoints and evaluation.

# %%
names = {"objective/score": "score", "objective/kl": "KL to the reference, nats", "ppo/val/error": "error of the critic, squared"}
curve = []
for step in range(experiment.steps):
    sampled, _, new_scores = answer(state.params, step * ROWS)
    estimates = evaluate(state.params, reference, sampled)
    state, metrics = learn(state, None, sampled, estimates._replace(policy=None), jnp.asarray(new_scores), everything_B)
    curve.append({name: float(metrics[name].total / metrics[name].weight) for name in names})
for axes, (name, label) in zip(plt.subplots(1, 3, figsize=(10, 2.6), layout="constrained")[1], names.items(), strict=True):
    axes.plot([found[name] for found in curve])
    axes.set(xlabel="step", title=label)
plt.show()

# %% [markdown]
# By now the critic expects something of an answer, and changes its mind where the answer goes wrong.

# %%
sampled, after, new_scores = answer(state.params, 0)
show("what the critic expects before each token", evaluate(state.params, reference, sampled).values, sampled, cmap="viridis")
for question, old, new in zip(questions.take(0, 8), before, after, strict=False):
    print(f"{question.prompt.text} {old:8} before, {new:8} after, {question.prompt.facts['answer']} wanted")
print(f"answers without a mistake: {np.mean(scores == 1):.0%} before, {np.mean(new_scores == 1):.0%} after")
