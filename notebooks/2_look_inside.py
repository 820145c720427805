# %% [markdown]
# # 2. Look inside
#
# What does a language model look at, when does it know the next token, and what surprises it? First a small model of Python code
# is trained, as in [the first notebook](1_first_model.ipynb). Then it is opened.

# %%
import html
import sysconfig
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from IPython.display import HTML

from data import Corpus, PrepareText, prepare_text
from model import ModelConfig
from train import Evaluation, Experiment, Logging, Muon, Samples, Schedule, TextData
from train import evaluate_by_position, load_parameters, look_inside, make_mesh, new_run, train

work = Path(tempfile.mkdtemp(prefix="omnia-"))
library = sysconfig.get_paths()["stdlib"]
prepare_text(PrepareText(output=str(work / "corpus"), input=(f"{library}/*.py",), tokenizer="sentencepiece:1024"))
experiment = Experiment(
    steps=500,
    batch_size=8,
    model=ModelConfig(context_length=128, num_layers=3, embed_dim=96, num_heads=4, norm="rmsnorm", positions="rotary", bias=False),
    data=TextData(shards=(str(work / "corpus"),)),
    optimizer=Muon(learning_rate=0.03, adam_learning_rate=8e-3),
    schedule=Schedule(warmup_steps=20, decay="linear", final_fraction=0.0),
    evaluation=Evaluation(every=0),
    samples=Samples(tokens=0),
    logging=Logging(every=100),
)
run = new_run(work / "run", experiment)
summary = train(run)

# %% [markdown]
# ## What surprises it
#
# `look_inside` reads one text and returns arrays. The surprise of a token is its negative log-probability, in nats. Here, the
# redder a token, the less the model expected it. Names that come again are expected sooner.

# %%
config, tokenizer = run.experiment.model, run.tokenizer()
params, _ = load_parameters(run, make_mesh(run.experiment.mesh))
text = "class Reader:\n    def __init__(self, stream):\n        self.stream = stream\n\n    def close(self):\n        self.stream.close()\n"
tokens = [tokenizer.document_start, *tokenizer.encode(text).tolist()]
inside = look_inside(config, params, tokens)


def word(token: int) -> str:
    """A token as text, with what cannot be seen made visible."""
    shown = tokenizer.decode([int(token)], specials=True).replace("\n", "\N{RETURN SYMBOL}")
    return f"{len(shown)} spaces" if shown.isspace() else shown


spans = [
    f'<span style="background: rgba(255, 60, 0, {nats / 8:.2f})" title="{nats:.1f} nats">{html.escape(tokenizer.decode([token]))}</span>'
    for token, nats in zip(tokens[1:], inside.nats_T[1:].tolist(), strict=True)
]
HTML(f'<pre style="background: white; color: black">{"".join(spans)}</pre>')

# %% [markdown]
# ## What it looks at
#
# Every head of every layer gives each token a share of its attention to each token before it. Rows look, columns are looked at.

# %%
names = [word(token) for token in tokens]
figure, axes = plt.subplots(config.num_layers, config.num_heads, figsize=(9, 2.3 * config.num_layers), layout="constrained")
for (layer, head), side in np.ndenumerate(axes):
    side.imshow(inside.attention_LHTT[layer, head] ** 0.5, cmap="magma", vmin=0, vmax=1)
    side.set(xticks=[], yticks=[], title=f"layer {layer + 1}, head {head + 1}")
plt.show()

# %% [markdown]
# One head from near: the one that gives most to the token just before. BERT has such heads
# too (Clark et al. 2019).

# %%
before = np.diagonal(inside.attention_LHTT, offset=-1, axis1=2, axis2=3).mean(-1)
layer, head = np.unravel_index(before.argmax(), before.shape)
plt.figure(figsize=(7, 7), layout="constrained")
plt.imshow(inside.attention_LHTT[layer, head], cmap="magma", vmin=0, vmax=1)
plt.xticks(range(len(names)), names, rotation=90, fontsize=7)
plt.yticks(range(len(names)), names, fontsize=7)
plt.title(f"layer {layer + 1}, head {head + 1}: {before.max():.0%} goes to the token before")
plt.show()

# %% [markdown]
# ## When it knows
#
# The *logit lens* asks what the model would say if it ended after fewer layers. Read a column from below: the token that is
# read, then what is thought likeliest to follow after each layer. The greener, the surer.

# %%
last = slice(-18, None)
plt.figure(figsize=(11, 0.5 + 0.5 * len(inside.depths)), layout="constrained")
plt.imshow(inside.confidence_NT[:, last], cmap="Greens", vmin=0, vmax=1, aspect="auto", origin="lower")
for (row, column), token in np.ndenumerate(inside.likeliest_NT[:, last]):
    colour = "white" if inside.confidence_NT[:, last][row, column] > 0.6 else "black"
    plt.text(column, row, word(token), ha="center", va="center", fontsize=8, color=colour)
plt.yticks(range(len(inside.depths)), [f"after layer {depth}" for depth in inside.depths])
plt.xticks(range(18), names[last], fontsize=8)
plt.show()

# %% [markdown]
# ## What context is worth
#
# The more of a text the model has seen, the better it predicts. The loss by the place of a token in its text:

# %%
found = evaluate_by_position(run, [Corpus(str(work / "corpus"))], rows=512)["by_position"]
plt.figure(figsize=(6, 2.8), layout="constrained")
plt.plot([1 + (part["first"] + part["last"]) / 2 for part in found], [part["loss"] for part in found], "o-")
plt.gca().set(xscale="log", xlabel="place in the text", ylabel="nats per token")
plt.show()
