# %% [markdown]
# # 14. Texts and worlds
#
# Texts that are held to something: edits to what was written, turns of a dialogue to what was said, a story to the world it happens in, and
# poems to their form. Nothing is downloaded; sentences, dialogues and poems are put together from a few words.

# %%
import contextlib
import io
import json
import random
import tempfile
import textwrap
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import omnia
from data import PrepareText, UserError, prepare_text
from model import ModelConfig, TextEncoderConfig
from train import AdamW, Coherence, Comparison, Evaluation, Experiment, Samples, Schedule, Supervised, Verse, World
from train import distinct, new_run, self_bleu, train, tunes

work, draw = Path(tempfile.mkdtemp(prefix="omnia-")), random.Random(0)


def write(name: str, rows) -> str:
    path = work / name
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return str(path)


def applied(run, name: str, rows) -> list[dict]:
    """What `omnia apply` makes of rows."""
    output = work / f"{name}.out.jsonl"
    with contextlib.redirect_stdout(io.StringIO()):
        omnia.main(["apply", str(run.path), "--input", write(f"{name}.jsonl", rows), "--output", str(output)])
    return [json.loads(line) for line in output.read_text().splitlines()]


# %% [markdown]
# ## Edits
#
# Between two texts: where each edit is, and of which kind. No model is needed for that.

# %%
COLOURS = {
    "punctuation": "grey",
    "case": "tab:green",
    "missing": "tab:blue",
    "extra": "tab:purple",
    "form": "tab:orange",
    "wording": "tab:red",
}
BEFORE = "Yesterday she wented to the the shop and bought apples, it was very well idea on monday."
AFTER = "Yesterday she went to the shop and bought apples. It was a very good idea on Monday."
comparison = Comparison(BEFORE, AFTER)
for edit in comparison.edits:
    print(f"{edit.start:3}-{edit.end:<3} {edit.kind:12} {edit.old!r} -> {edit.new!r}")

figure, axis = plt.subplots(figsize=(10, 1.4))
for place, letter in enumerate(BEFORE):
    axis.text(place + 0.5, 1, letter, family="monospace", fontsize=10, ha="center")
for edit in comparison.edits:
    middle = (edit.start + edit.end) / 2
    axis.plot([edit.start, max(edit.end, edit.start + 0.6)], [0.9, 0.9], color=COLOURS[edit.kind], linewidth=4)
    axis.text(middle, 0.75, edit.new or "-", family="monospace", fontsize=10, ha="center", va="top", color=COLOURS[edit.kind])
for place, (kind, colour) in enumerate(COLOURS.items()):
    axis.text(14 * place, 1.4, kind, color=colour, fontsize=10)
axis.set_xlim(0, len(BEFORE) + 1)
axis.set_ylim(0.4, 1.6)
axis.axis("off")
plt.show()

# %% [markdown]
# Any of them can be taken and the others left; all else stays as it is, byte for byte.

# %%
for kinds in (("case", "punctuation"), ("form", "wording"), tuple(COLOURS)):
    print(comparison.applied(lambda edit, kinds=kinds: edit.kind in kinds))

# %% [markdown]
# ## A dialogue that contradicts itself
#
# A judge learns from dialogues alone. It is shown turns as they were said; turns from elsewhere; something said before that was changed so
# that it contradicts; and something said before as it was, which is no contradiction. What people say here is drawn by chance, so that
# nobody can tell a contradiction without looking back.

# %%
SAYS = {
    "rise?": ["early", "late"],
    "house?": ["big", "small"],
    "sea?": ["near", "far"],
    "street?": ["quiet", "loud"],
    "shops?": ["cheap", "expensive"],
}


def dialogue() -> list[str]:
    asked = draw.sample(list(SAYS), 3)
    return [turn for one in asked for turn in (f"B: {one}", f"A: {draw.choice(SAYS[one])}.")]


dialogues = [{"turns": dialogue()} for _ in range(1000)]
said = write("said.jsonl", [{"text": " ".join(one["turns"])} for one in dialogues])
prepare_text(PrepareText(output=str(work / "said"), input=(said,), tokenizer="sentencepiece:350"))
judge = new_run(
    work / "judge",
    Experiment(
        steps=1500,
        batch_size=64,
        model=TextEncoderConfig(
            context_length=48, num_layers=2, embed_dim=48, num_heads=2, init_std=0.25, pooler=False, prediction_head=False, token_types=0
        ),
        data=Coherence(
            files=(write("dialogues.jsonl", dialogues),),
            validation=0.1,
            tokenizer=str(work / "said" / "tokenizer"),
            length=48,
            planted=("opposite",),
        ),
        objective=Supervised(),
        optimizer=AdamW(learning_rate=3e-3),
        schedule=Schedule(warmup_steps=30, decay="linear"),
        evaluation=Evaluation(every=0),
    ),
)
train(judge)

# %% [markdown]
# The same dialogue twice, but for its last turn; what is not coloured is the share of "said elsewhere".

# %%
so_far = ["B: rise?", "A: early.", "B: house?"]
endings = {"what she said before": "A: early.", "its opposite": "A: late."}
lines = applied(judge, "judged", [{"turns": [*so_far, ending]} for ending in endings.values()])
figure, axes = plt.subplots(1, 2, figsize=(9, 2))
for axis, (name, ending), line in zip(axes, endings.items(), lines, strict=True):
    for place, one in enumerate(line["turns"]):
        axis.barh(place, one["follows"], color="tab:blue", label="follows" if not place else None)
        axis.barh(place, one["contradicts"], left=one["follows"], color="tab:red", label="contradicts" if not place else None)
    axis.set_yticks(range(3), [*so_far[1:], ending])
    axis.invert_yaxis()
    axis.set_xlim(0, 1)
    axis.set_title(name, fontsize=9)
axes[0].legend(fontsize=7)
figure.tight_layout()
plt.show()

# %% [markdown]
# And many dialogues, of which half end with a contradiction.

# %%
made, changed = [], np.array([draw.random() < 0.5 for _ in range(300)])
for one in changed:
    turns = dialogue()[: draw.choice([3, 5])]
    values = SAYS[turns[0].removeprefix("B: ")]
    said_before = turns[1].removeprefix("A: ").removesuffix(".")
    made.append({"turns": [*turns, f"A: {values[1 - values.index(said_before)] if one else said_before}."]})
score = np.array([line["turns"][-1]["contradicts"] for line in applied(judge, "many", made)])
plt.figure(figsize=(6, 2.6))
plt.hist([score[~changed], score[changed]], bins=20, label=["said again", "changed"], color=["tab:blue", "tab:red"])
plt.xlabel("probability of a contradiction")
plt.ylabel("dialogues")
plt.legend()
plt.show()
print(f"{np.mean((score > 0.5) == changed):.2f} told rightly")

# %% [markdown]
# Most are told rightly, and little that was only said again is taken for a contradiction, but some contradictions are missed. To compare a
# word with another one far back is hard to learn from nothing: when people here spoke in whole sentences, models of this size were, after
# as long, as good as a coin. A pretrained encoder is the place to start from. For dialogues like these, a list of opposites and a search
# would make no mistake.
#
# ## A world that is kept
#
# A world is data: rooms, things, people, doors. The program keeps what is where; whoever words what happens is held to it.

# %%
ISLAND = {
    "rooms": {
        "beach": {"text": "You stand on a beach.", "exits": {"north": "garden", "east": "hut"}},
        "garden": {"text": "A garden, long left alone.", "exits": {"south": "beach", "north": "tower"}},
        "hut": {"text": "A hut that smells of fish.", "exits": {"west": "beach"}},
        "tower": {"text": "From up here you see all of the island.", "exits": {"south": "garden"}},
    },
    "things": {"shell": {"text": "It is white.", "at": "garden"}, "key": {"text": "It is rusty.", "at": "Mara"}},
    "people": {"Mara": {"text": "She mends a net.", "at": "hut", "says": "I look for a shell.", "wants": "shell"}},
    "doors": {"gate": {"between": ["garden", "tower"], "key": "key"}},
    "start": "beach",
    "goal": {"room": "tower"},
}
WALK = [
    "north",
    "open the gate",
    "take the shell",
    "s",
    "go to the hut",
    "talk to Mara",
    "give the shell to Mara",
    "w",
    "n",
    "unlock gate",
    "north",
]
world = World(ISLAND, "the island")
state, path, open_at = world.begin(), ["beach"], []
for command in WALK:
    state, outcome = world.step(state, command)
    path.append(state.room)
    open_at.append("gate" in state.opened)
    print(f"> {command}\n  {outcome.text}")

# %%
PLACES = {"beach": (0, 0), "garden": (0, 1), "hut": (1, 0), "tower": (0, 2)}
figure, axis = plt.subplots(figsize=(4, 4))
for room, (x, y) in PLACES.items():
    for to in ISLAND["rooms"][room]["exits"].values():
        gate = {room, to} == {"garden", "tower"}
        axis.plot([x, PLACES[to][0]], [y, PLACES[to][1]], color="tab:red" if gate else "lightgrey", linewidth=6, zorder=0)
    axis.text(x, y, room, ha="center", va="center", bbox={"facecolor": "white", "edgecolor": "grey"})
moves = [(one, other) for one, other in zip(path, path[1:], strict=False) if one != other]
for number, (one, other) in enumerate(moves, 1):
    (x, y), (to_x, to_y) = PLACES[one], PLACES[other]
    side = 0.1 if (to_x - x, to_y - y) > (0, 0) else -0.1
    near = 0.35 + 0.3 * ((one, other) in moves[: number - 1])
    axis.text(
        x + near * (to_x - x) + side * (x == to_x),
        y + near * (to_y - y) + side * (y == to_y),
        str(number),
        color="tab:blue",
        ha="center",
        va="center",
    )
axis.set_xlim(-0.4, 1.4)
axis.axis("off")
axis.set_title("the walk, step by step; red: the gate", fontsize=9)
plt.show()

# %% [markdown]
# A world whose goal cannot be reached is refused before anybody plays in it. And a narrator is caught that says what is not so.

# %%
locked_in = ISLAND | {"things": ISLAND["things"] | {"key": {"text": "It is rusty.", "at": "tower"}}}
try:
    World(locked_in, "the island")
except UserError as error:
    print(error, end="\n\n")
for said in (
    "A breeze comes from the sea.",
    "Mara waves at you.",
    "Far to the west a ship goes by.",
    "The gate stands open.",
    "The shell is white.",
):
    print(f"{said:34} {world.contradictions(world.step(world.begin(), 'north')[0], said) or 'may be said'}")

# %% [markdown]
# Only what the world has names for can be contradicted: a ship may come by, since nobody says that there are none.
#
# ## Verse in its form
#
# Poems to two tunes, made up of words of two characters and so without much sense. Nobody tells the form of a tune: which places are level
# in tone and which oblique, and where the rhymes are, is found from what its poems share. Some of them break the rules.

# %%
LEVEL = "春风 青山 江天 孤舟 秋风 东风 清歌 寒江 溪边 山中 花开".split()
OBLIQUE = "夜雨 落叶 细雨 暮雪 月影 远树 旧梦 冷月 野草 古路 静夜".split()
SINGLE = {"level": "来 飞 听 生 归 开".split(), "oblique": "过 照 映 落 到 看 坐".split()}
RHYMES, PAIRS = "光 香 凉 堂 窗 霜".split(), "春光 花香 清凉 秋霜 家乡 江阳".split()
TUNES = {
    "寒窗": ["OlL，", "LO*。", "LoO，", "OoP。"],
    "春江": ["LO，OP。", "OLoO，LO*。"],
}


def made_up(tune: str) -> str:
    """A poem by a pattern: O and L are words of two characters, o and l single ones, * a rhyme, P a word that ends with one."""
    words = {"O": OBLIQUE, "L": LEVEL, "o": SINGLE["oblique"], "l": SINGLE["level"], "*": RHYMES, "P": PAIRS}
    broken = {"O": LEVEL, "L": OBLIQUE, "o": SINGLE["level"], "l": SINGLE["oblique"], "*": RHYMES, "P": LEVEL}
    kept = draw.random() < 0.9
    return "\n".join(
        "".join(draw.choice((words if kept or draw.random() < 0.7 else broken)[one]) if one in words else one for one in line)
        for line in TUNES[tune]
    )


poems = [(name, made_up(name)) for name in TUNES for _ in range(60)]
for name, found in tunes(poems).items():
    print(f"{name}, of {found.poems} poems, such as\n{textwrap.indent(dict(poems)[name], '    ')}")

figure, axes = plt.subplots(1, 2, figsize=(9, 2.2))
for number, (axis, found) in enumerate(zip(axes, tunes(poems).values(), strict=True), 1):
    place = 0
    for row, line in enumerate(found.shape.split("\n")):
        for column, letter in enumerate(line):
            if letter == "字":
                colour = {"level": "tab:blue", "oblique": "tab:orange"}.get(found.tones[place], "lightgrey")
                axis.scatter(column, -row, s=180, color=colour, edgecolor="black" if place in found.rhymes else "white", linewidth=2.5)
                place += 1
    axis.set_title(f"tune {number}, as found", fontsize=9)
    axis.set_ylim(-len(found.shape.split("\n")), 1)
    axis.axis("off")
plt.show()

# %% [markdown]
# Blue is level, orange oblique, grey either; a black rim is a rhyme. The poems that break the rules did not hide them.
#
# ## Draw poems
#
# A tiny decoder learns from the poems. When it writes to a tune, each character is drawn among those that keep the form; or it writes
# freely.

# %%
rows = [{"form": name, "title": "", "lines": poem.split("\n")} for name, poem in poems]
prepare_text(
    PrepareText(
        output=str(work / "poems"), input=(write("letters.jsonl", [{"text": f"{name}\n{poem}"} for name, poem in poems]),), tokenizer="char"
    )
)
poet = new_run(
    work / "poet",
    Experiment(
        steps=150,
        batch_size=16,
        model=ModelConfig(context_length=96, num_layers=1, embed_dim=64, num_heads=2, positions="rotary"),
        data=Verse(files=(write("poems.jsonl", rows),), tokenizer=str(work / "poems"), length=96, written=40),
        objective=Supervised(),
        optimizer=AdamW(learning_rate=3e-3),
        schedule=Schedule(warmup_steps=10, decay="linear"),
        evaluation=Evaluation(every=0),
        samples=Samples(tokens=0),
    ),
)
train(poet)

# %%
TEMPERATURES = (0.2, 0.5, 0.8, 1.1, 1.5, 2.0)
asked = [
    {"form": name, "n": 8, "seed": seed, "temperature": temperature, "top_p": 1.0, "free": free}
    for free in (False, True)
    for temperature in TEMPERATURES
    for name in TUNES
    for seed in (0, 1)
]
lines = applied(poet, "written", asked)
for line in lines[8:12:2]:
    print(line["text"], end="\n\n")

# %% [markdown]
# ## Diversity
#
# The hotter poems are drawn, the less they are alike: distinct-2 is the number of different pairs of characters over that of all, self-BLEU
# how much of each poem stands in the others. Dashed: some of the poems that were learned from.

# %%
known = {poem[place : place + 2] for _, poem in poems for place in range(len(poem) - 1)}
measured = {False: [], True: []}
for place in range(0, len(asked), 4):
    some = [one for line in lines[place : place + 4] for one in line["poems"]]
    texts = ["".join(one["lines"]) for one in some]
    pairs = [text[at : at + 2] for one in some for text in one["lines"] for at in range(len(text) - 1)]
    measured[asked[place]["free"]].append(
        [distinct(texts, 2), self_bleu(texts), np.mean([pair in known for pair in pairs]), np.mean([one["shape"] for one in some])]
    )
own = [poem.replace("\n", "") for _, poem in poems[::4]]
titles = ["distinct-2", "self-BLEU", "known pairs", "in shape"]
figure, axes = plt.subplots(1, 4, figsize=(11, 2.6))
for number, (axis, title) in enumerate(zip(axes, titles, strict=True)):
    for free, values in measured.items():
        axis.plot(TEMPERATURES, [one[number] for one in values], "o-", markersize=3, label="freely" if free else "under the form")
    axis.set_title(title, fontsize=9)
    axis.set_xlabel("temperature")
axes[0].axhline(distinct(own, 2), color="grey", linestyle="--")
axes[1].axhline(self_bleu(own), color="grey", linestyle="--")
axes[3].legend(fontsize=7)
figure.tight_layout()
plt.show()

# %% [markdown]
# More is not better: hotter than the poems themselves, the model breaks up the words, as the falling share of known pairs shows. Drawn
# freely, it loses the form on the way; under the form it cannot, however hot, and is about as diverse. For poems as simple as these,
# drawing words by the pattern, as the cell that made them up does, is all that one needs. A model pays where nobody can write the words
# down.
