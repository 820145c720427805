# %% [markdown]
# # 5. See and hear
#
# One model learns to answer questions about pictures and sounds of a small world, which is rendered on the spot. Then a folder of
# photographs, drawn ones that stand in for yours, becomes a data set and a classifier.

# %%
import io
import random
import tempfile
from pathlib import Path

import matplotlib.image
import matplotlib.pyplot as plt
import numpy as np
from IPython.display import Audio, Image

import omnia
from data import PrepareMedia, log_mel, make_scene, prepare_media, render_audio, render_image
from model import AudioEncoder, ImageEncoder, MultimodalConfig, Projection, Sampling
from train import Evaluation, Experiment, Logging, MediaClassification, MediaLM, MediaShards, Muon, Samples, Schedule, WorldScenes
from train import evaluate_run, load_writer, new_run, train

work = Path(tempfile.mkdtemp(prefix="omnia-"))

# %% [markdown]
# ## A world that can be seen and heard
#
# A scene has one to three objects. Each object has a shape, a colour, a place and, by its shape, a pitch: the objects sound one
# after the other.

# %%
scenes = sorted((make_scene(random.Random(seed)) for seed in range(12)), key=lambda scene: -len(scene.things))[:4]
sounds = [render_audio(scene, np.random.default_rng(0)) for scene in scenes]
figure, axes = plt.subplots(2, 4, figsize=(10, 4.2), layout="constrained", height_ratios=(2, 1))
for scene, sound, (above, below) in zip(scenes, sounds, axes.T, strict=True):
    above.imshow(render_image(scene, 64))
    above.set_title("\n and ".join(scene.caption.split(" and ")), fontsize=8)
    below.imshow(log_mel(sound).T, origin="lower", aspect="auto", cmap="magma")
    for side in (above, below):
        side.set(xticks=[], yticks=[])
axes[1, 0].set(ylabel="pitch", xlabel="time")
plt.show()
Audio(sounds[-1], rate=16_000)

# %% [markdown]
# ## Train
#
# Pictures and spectrograms are cut into patches, encoders turn those into vectors, and the vectors stand among the tokens of the
# row. The model learns to write the answers. Some samples hide their medium, to tell seeing from guessing.

# %%
tower = {"num_layers": 2, "embed_dim": 64, "num_heads": 4}
image = ImageEncoder(patch=8, rows=4, columns=4, **tower)
audio = AudioEncoder(times=48, projector=Projection(shuffle=2), **tower)
decoder = {"num_layers": 2, "embed_dim": 96, "num_heads": 4, "norm": "rmsnorm", "bias": False, "positions": "rotary"}
world = Experiment(
    steps=320,
    batch_size=24,
    model=MultimodalConfig(context_length=96, encoders=(image, audio), **decoder),
    data=WorldScenes(tasks=("image", "audio"), media_dropout=0.1, images=2, audios=2, validation=128),
    objective=MediaLM(),
    optimizer=Muon(learning_rate=0.03, adam_learning_rate=3e-3),
    schedule=Schedule(warmup_steps=30, decay="linear", final_fraction=0.0),
    evaluation=Evaluation(every=0),
    samples=Samples(tokens=16, temperature=0.0),
    logging=Logging(every=60),
)
run = new_run(work / "world", world)
summary = train(run)

# %% [markdown]
# What the model is fed, sample by sample: what it reads is black, what it learns to write green.

# %%
assert omnia.main(["inspect", str(run.path), "--media", str(work / "sheet.png"), "--step", "0", "--batch-size", "3"]) == 0
Image(work / "sheet.png")

# %% [markdown]
# ## Does it look, or guess?
#
# The share of right answers about new scenes, and the same with the medium hidden.

# %%
found = evaluate_run(run)
kinds = ("image", "audio")
plt.figure(figsize=(4, 2.6), layout="constrained")
plt.bar(np.arange(2) - 0.2, [found[kind] for kind in kinds], width=0.35, label="shown")
plt.bar(np.arange(2) + 0.2, [found[f"blind_{kind}"] for kind in kinds], width=0.35, label="hidden", color="lightgrey")
plt.gca().set(xticks=(0, 1), xticklabels=kinds, ylabel="right answers", ylim=(0, 1.3))
plt.legend(ncols=2)
plt.show()

# %% [markdown]
# ## Ask it

# %%
writer, scene = load_writer(run), make_scene(random.Random(40))
drawn = io.BytesIO()
plt.imsave(drawn, render_image(scene, 64))
thing = scene.things[0]
questions = {"how many? ": ("no", "one", "two", "three")[len(scene.things)]}
questions |= {f"colour of the {thing.shape}? ": thing.colour, f"shape of the {thing.colour} one? ": thing.shape}
asked = [writer.read([("image", drawn.getvalue()), ("text", question)]) for question in questions]
answers = writer.write(asked, tokens=16, sampling=Sampling(temperature=0.0))
plt.figure(figsize=(2, 2))
plt.imshow(render_image(scene, 64))
plt.axis("off")
plt.show()
for (question, right), answer in zip(questions.items(), answers, strict=True):
    print(f"{question}{answer} ({'right' if answer == right else f'no, {right}'})")

# %% [markdown]
# ## What an answer rests on
#
# One place of the picture after the other is hidden: red, where the right answer then becomes less likely. Beside it, how much
# attention each place gets.

# %%
Image(run.path / "plots" / "occlusion.png")

# %% [markdown]
# ## Your own photographs
#
# Put the path of a folder of pictures into `photos`; a subfolder's name is the class of what it holds. Here: drawn ones.

# %%
photos = work / "photos"  # or Path("the folder of yours")
rows, columns = np.indices((64, 64)) / 64
chance = np.random.default_rng(0)
for number in range(0 if photos.exists() else 180):
    kind, horizon, fine = ("beach", "forest", "night")[number % 3], chance.uniform(0.3, 0.6), chance.uniform(15, 40)
    inside, colours = {
        "beach": ([rows < horizon, rows < horizon + 0.2], [(0.5, 0.75, 0.95), (0.1, 0.4, 0.6), (0.9, 0.8, 0.5)]),
        "forest": ([np.sin(fine * columns) > 0.7, rows < horizon], [(0.35, 0.2, 0.1), (0.2, 0.5, 0.2), (0.1, 0.3, 0.1)]),
        "night": ([chance.random((64, 64)) > 0.98, rows < horizon], [(1.0, 1.0, 0.9), (0.05, 0.05, 0.2), (0.02, 0.02, 0.05)]),
    }[kind]
    picture = np.array(colours)[np.select(inside, (0, 1), 2)] * chance.uniform(0.5, 1.1) + chance.normal(0, 0.05, (64, 64, 3))
    (photos / kind).mkdir(parents=True, exist_ok=True)
    matplotlib.image.imsave(photos / kind / f"{number}.png", picture.clip(0, 1))
prepare_media(PrepareMedia(output=str(work / "shards"), kind="images", input=(str(photos),), validation=0.2))
assert omnia.main(["inspect", str(work / "shards"), "--media", str(work / "photos.png")]) == 0
Image(work / "photos.png")

# %%
classifier = Experiment(
    steps=40,
    batch_size=24,
    model=MultimodalConfig(
        context_length=64,
        num_layers=1,
        embed_dim=32,
        num_heads=1,
        encoders=(ImageEncoder(patch=16, rows=4, columns=4, stem="convolutions", **tower),),
    ),
    data=MediaShards(shards=(str(work / "shards"),)),
    objective=MediaClassification(),
    optimizer=Muon(learning_rate=0.01, adam_learning_rate=1e-3),
    schedule=Schedule(warmup_steps=10),
    evaluation=Evaluation(every=0),
    samples=Samples(tokens=0),
    logging=Logging(every=10),
)
photographs = new_run(work / "classifier", classifier)
train(photographs)
print(f"{evaluate_run(photographs)['accuracy']:.0%} of the pictures that were held out are told right")
