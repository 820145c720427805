# %% [markdown]
# # 7. Shard it
#
# A model that is too large for one chip is spread over many. Eight pretended devices, made of this machine's processor, show who
# holds what and who talks to whom. The code is what runs on a pod.

# %%
import dataclasses
import importlib.util
import tempfile
from pathlib import Path

import jax
import matplotlib.image
import matplotlib.pyplot as plt
import numpy as np

import omnia
from data import PrepareText, prepare_text
from model import ModelConfig
from train import AdamW, Evaluation, Experiment, Logging, MeshShape, Samples, Schedule, TextData
from train import load_config, load_parameters, make_mesh, make_plan, new_run, print_plan, read_metrics, state_of, train

jax.config.update("jax_platforms", "cpu")  # whatever else there is
jax.config.update("jax_num_cpu_devices", 8)  # before anything runs

home, work = Path(omnia.__file__).parent, Path(tempfile.mkdtemp(prefix="omnia-"))
(work / "zen.txt").write_text("Devices share the work, and nobody holds it all.\n" * 500)
corpus = prepare_text(PrepareText(output=str(work / "corpus"), input=(str(work / "zen.txt"),), validation=0.2))

# %% [markdown]
# ## A mesh
#
# The devices form a grid whose axes have names. Rows of a batch are spread over `data` and `fsdp`, parameters over `fsdp`, and
# heads, feed-forward layers and the vocabulary over `tensor`.

# %%
shape = MeshShape(data=2, fsdp=2, tensor=2)
mesh = make_mesh(shape)
places = {device.id: dict(zip(mesh.axis_names, place, strict=True)) for place, device in np.ndenumerate(mesh.devices)}
axes = plt.figure(figsize=(4.5, 3.2), layout="constrained").add_subplot(projection="3d", computed_zorder=False)
for device, place in places.items():
    where = place["data"], place["fsdp"], place["tensor"]
    axes.scatter(*where, s=600, color=f"C{device}")
    axes.text(*where, str(device), ha="center", va="center", color="white")
axes.set(xlabel="data", ylabel="fsdp", zlabel="tensor", xticks=(0, 1), yticks=(0, 1), zticks=(0, 1))
plt.show()

# %% [markdown]
# ## Who holds what
#
# `state_of` says where each array of the training state lies, without making it. Every rectangle is a piece of an array; the
# numbers are the devices that hold it. A device that has only some pieces of a matrix asks the others when it needs the rest.

# %%
experiment = Experiment(
    steps=8,
    batch_size=16,
    model=ModelConfig(context_length=64, num_layers=2, embed_dim=64, num_heads=4, vocab_size=384, positions="rotary", bias=False),
    data=TextData(shards=(str(corpus.path),)),
    optimizer=AdamW(learning_rate=3e-3),
    schedule=Schedule(warmup_steps=4),
    mesh=shape,
    evaluation=Evaluation(every=0),
    samples=Samples(tokens=0),
    logging=Logging(every=1),
)
params = state_of(experiment, mesh).params
layer = params["layers"]
shown = {
    "embedding table": (params["embedding"]["table"], (0, 1), ("vocabulary", "width")),
    "queries of attention": (layer["attention"]["query"]["kernel"], (1, 2), ("width", "heads")),
    "feed-forward, up": (layer["feed_forward"]["up"]["kernel"], (1, 2), ("width", "inner width")),
    "norm": (layer["attention_norm"]["scale"], (0, 1), ("layer", "width")),
}
for axes, (name, (array, (rows, columns), labels)) in zip(
    plt.subplots(1, 4, figsize=(12, 3.2), layout="constrained")[1], shown.items(), strict=True
):
    height, width = array.shape[rows], array.shape[columns]
    holders: dict = {}
    for device, index in array.sharding.devices_indices_map(array.shape).items():
        piece = index[rows].indices(height)[:2] + index[columns].indices(width)[:2]
        holders.setdefault(piece, []).append(device.id)
    for number, ((top, bottom, left, right), devices) in enumerate(holders.items()):
        axes.add_patch(plt.Rectangle((left, top), right - left, bottom - top, facecolor=f"C{number}", alpha=0.4, edgecolor="black"))
        axes.text((left + right) / 2, (top + bottom) / 2, " ".join(map(str, sorted(devices))), ha="center", va="center")
    axes.set(xlim=(0, width), ylim=(height, 0), title=name, xlabel=labels[1], ylabel=labels[0])
plt.show()

# %% [markdown]
# ## Three ways, and what they cost
#
# All devices hold everything (`data`), each holds an eighth (`fsdp`), or a mixture. The training step is compiled for each. The
# compiler says how much memory a device needs, and the compiled program says what is sent between devices in a step.

# %%
ways = {
    "data 8": MeshShape(),
    "fsdp 8": MeshShape(fsdp=8),
    "data 2, fsdp 2, tensor 2": shape,
}
plans = {name: make_plan(dataclasses.replace(experiment, mesh=way), "cpu:8") for name, way in ways.items()}
memory, traffic = plt.subplots(1, 2, figsize=(11, 3), layout="constrained")[1]
bottom = np.zeros(len(plans))
for part in ("parameter_bytes", "optimizer_bytes", "work_bytes"):
    sizes = np.array([found[part] / 2**20 for found in plans.values()])
    memory.bar(list(plans), sizes, bottom=bottom, label=part.removesuffix("_bytes"), width=0.5)
    bottom += sizes
memory.set(ylabel="MiB a device")
memory.legend()
kinds = sorted({kind for found in plans.values() for kind in found["collectives"]})
for number, kind in enumerate(kinds):
    sent = [found["collectives"].get(kind, {"bytes": 0})["bytes"] / 2**20 for found in plans.values()]
    traffic.bar(np.arange(len(plans)) + 0.2 * (number - len(kinds) / 2 + 0.5), sent, width=0.2, label=kind)
traffic.set(xticks=range(len(plans)), xticklabels=list(plans), ylabel="MiB exchanged a device and step")
traffic.legend()
plt.show()

# %% [markdown]
# ## The numbers stay the same
#
# How a model is spread is a matter of memory and speed. What it learns does not change, up to rounding.

# %%
losses = {}
for number, (name, way) in enumerate(ways.items()):
    run = new_run(work / f"run-{number}", dataclasses.replace(experiment, mesh=way))
    train(run)
    losses[name] = [row["loss"] for row in read_metrics(run.path) if row["kind"] == "train"]
for number, (name, values) in enumerate(losses.items()):
    plt.plot(values, label=name, linewidth=7 - 2.5 * number)
plt.gca().set(xlabel="step", ylabel="nats per token")
plt.gcf().set_size_inches(5, 2.6)
plt.legend()
plt.show()
print(f"largest difference: {np.ptp(list(losses.values()), axis=0).max():.1e} nats")

# %% [markdown]
# The array itself, as JAX draws it: a checkpoint of the last run, on its mesh.

# %%
trained, _ = load_parameters(run, mesh)
jax.debug.visualize_array_sharding(trained["embedding"]["table"])

# %% [markdown]
# ## Plan a pod before you rent it
#
# The same compilation works for hundreds of chips that are not there, if the compiler for TPUs is installed (`pip install
# libtpu`). The picture is that of the plan in the documentation.

# %%
plt.figure(figsize=(9, 5))
plt.imshow(matplotlib.image.imread(home / "docs/plans/decoder_100b.png"))
plt.axis("off")
plt.show()
if importlib.util.find_spec("libtpu"):
    print_plan(make_plan(load_config(str(home / "configs/decoder_100b.py")), "v5p:8x8x8"))
