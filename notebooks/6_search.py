# %% [markdown]
# # 6. Search
#
# Thinking before acting, as code: Monte Carlo tree search finds a move in connect four, knowing nothing but the rules. Then the
# same idea, with a critic's help, finds better answers of a language model.

# %%
import functools
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from model import ModelConfig
from train import CONNECT_FOUR, PPO, AdamW, Demonstrations, Evaluation, Experiment, Letters, Logging, Prompts, Samples, Schedule
from train import grow_tree, measure_decoding, new_run, random_play, train

work = Path(tempfile.mkdtemp(prefix="omnia-"))

# %% [markdown]
# ## A position
#
# Red moves next, and can win whatever yellow does. Do you see how?

# %%
game = CONNECT_FOUR
state = game.initial()
for column in (3, 3, 2, 2):
    state = game.step(state, column)


def draw_board(axes, cells_RC, player: int, size: float):
    """Red began. The cells are as the player sees them who moves next: that player's stones are 1."""
    stones = np.asarray(cells_RC) * (1 if player == 0 else -1)
    rows, columns = np.indices(stones.shape)
    colours = np.select([stones == 1, stones == -1], ["crimson", "gold"], "white")
    axes.scatter(columns.ravel(), rows.ravel(), s=size, c=colours.ravel(), linewidths=0)
    axes.set(xlim=(-0.7, 6.7), ylim=(5.7, -0.7), xticks=[], yticks=[], facecolor="midnightblue", aspect="equal")


axes = plt.figure(figsize=(3, 2.6), layout="constrained").gca()
draw_board(axes, state.cells_RC, 0, 250)
axes.set(xticks=range(7))
plt.show()

# %% [markdown]
# ## The tree grows
#
# Each simulation walks down the tree to a position that it has not seen, plays a random game from there, and tells all positions
# on its way how that ended. Walks prefer what has done well, and what was seldom tried. More and more visits go to the best move.

# %%
batch = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], state)
evaluate = random_play(game, discount=-1.0, longest=game.longest)


@functools.partial(jax.jit, static_argnums=1)
def grow(key, simulations: int):
    return grow_tree(game, evaluate, None, key, batch, discount=-1.0, simulations=simulations, exploration=4.0)


budgets = (30, 100, 300)
trees = {simulations: jax.tree.map(lambda leaf: np.asarray(leaf)[0], grow(jax.random.key(0), simulations)) for simulations in budgets}
for axes, (simulations, tree) in zip(plt.subplots(1, 3, figsize=(10, 2.4), layout="constrained")[1], trees.items(), strict=True):
    axes.bar(range(7), tree.visits_BNA[0], color=plt.get_cmap("RdYlGn")(0.5 + tree.q_BNA[0] / 2))
    axes.set(xlabel="column", ylabel="visits", title=f"{simulations} simulations")
plt.show()
print(f"It plays column {trees[budgets[-1]].visits_BNA[0].argmax()}. Green is winning, red losing.")

# %% [markdown]
# The largest part of the tree. A line is as thick as it was walked often; green is good for whoever moves there.

# %%
tree, SHOWN = trees[budgets[-1]], (4, 3, 1)  # moves of a position that are drawn, by its depth
figure, axes = plt.subplots(figsize=(12, 6.5), layout="constrained")
axes.axis("off")


def draw(node: int, depth: int, left: float, right: float):
    here = (left + right) / 2, -depth
    player = int(tree.embeddings.player[node])
    moves = np.argsort(-tree.visits_BNA[node])[: SHOWN[depth]] if depth < len(SHOWN) else np.array([], int)
    for number, move in enumerate(moves[tree.visits_BNA[node, moves] > 0].tolist()):
        edges = np.linspace(left, right, len(moves) + 1)
        there = draw(int(tree.children_BNA[node, move]), depth + 1, edges[number], edges[number + 1])
        visits, value = int(tree.visits_BNA[node, move]), float(tree.q_BNA[node, move])
        colour = plt.get_cmap("RdYlGn")(0.5 + value / 2)
        axes.plot(*zip(here, there, strict=True), color=colour, linewidth=1 + 8 * visits / tree.visits_BNA[0].sum(), zorder=0)
        axes.text((here[0] + there[0]) / 2, (here[1] + there[1]) / 2, f"{move}: {visits}", fontsize=8, ha="center", backgroundcolor="white")
    inset = axes.inset_axes((here[0] - 0.035, here[1] - 0.22, 0.07, 0.44), transform=axes.transData)
    draw_board(inset, tree.embeddings.cells_RC[node], player, 9)
    return here


draw(0, 0, 0.0, 1.0)
axes.set(xlim=(0, 1), ylim=(-len(SHOWN) - 0.3, 0.3))
plt.show()

# %% [markdown]
# ## Search on text
#
# A language model learns to sort digits, first from few demonstrations, then by PPO. That trains a critic, which says how well an
# unfinished answer is going. Most systems throw it away after training. A search can use it.

# %%
task = Letters("sort", length=6, partial=False)
quiet = {"evaluation": Evaluation(every=0), "samples": Samples(tokens=0), "logging": Logging(every=50)}
quiet |= {"schedule": Schedule(warmup_steps=10)}
size = ModelConfig(context_length=16, num_layers=2, embed_dim=64, num_heads=4, norm="rmsnorm", positions="rotary", bias=False)
demonstrations = Demonstrations(environments=(task,))
imitation = Experiment(steps=100, batch_size=64, model=size, data=demonstrations, optimizer=AdamW(learning_rate=3e-3), **quiet)
start = new_run(work / "start", imitation)
train(start)
prompts, options = Prompts(environments=(task,), prompt_tokens=8), PPO(response_tokens=8, kl_coefficient=0.0)
optimizer = AdamW(learning_rate=1e-3, weight_decay=0.0)
rewarded = {"data": prompts, "objective": options, "optimizer": optimizer, "start": str(start.path)}
policy = new_run(work / "policy", Experiment(steps=40, batch_size=256, model=size, **rewarded, **quiet))
summary = train(policy)

# %% [markdown]
# All ways of answering below have the same budget of tokens that the model may read, except plain sampling, which reads each
# token once. *best of* samples several answers and keeps the best. *guided* asks the critic about every likely next token.
# *search* grows a tree for each token. *best first* grows one tree from the prompt.

# %%
found = {kind: measure_decoding(policy, kind, passes=8, count=128) for kind in ("sample", "best_of", "guided", "search", "best_first")}
plt.figure(figsize=(6, 2.4), layout="constrained")
bars = plt.barh([kind.replace("_", " ") for kind in found], [100 * result["solved"] for result in found.values()])
plt.bar_label(bars, [f" {result['solved']:.0%}, {result['passes']:.0f} passes" for result in found.values()])
plt.gca().set(xlabel="answers without a mistake, percent", xlim=(0, 130))
plt.gca().invert_yaxis()
plt.show()
