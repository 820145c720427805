# %% [markdown]
# # 16. Told otherwise
#
# Notes that are plain or courtly. A run learns from notes of each kind, of which none is the other's; then it tells a plain one in courtly
# words. The notes are put together here, so that it is known what each should become, and what is lost. Nothing is downloaded.

# %%
import contextlib
import io
import json
import random
import re
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import omnia
from data import PrepareText, prepare_text
from model import ModelConfig
from train import AdamW, Evaluation, Experiment, Restyling, Samples, Schedule, Supervised, new_run, train

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
# ## Two kinds of notes
#
# Each has a greeting, what is wanted and a farewell, in the words of its kind; and a name, a thing and a place, which either kind may
# have.

# %%
GREETINGS = {"hi": "honoured", "hey": "esteemed", "hello": "gracious"}
WISHES = {"get": "procure", "fix": "restore", "sell": "convey", "show": "exhibit", "hide": "conceal", "clean": "purify"}
FAREWELLS = {"thanks": "gratefully", "bye": "farewell", "cheers": "respectfully"}
NAMES, PLACES = ("anna", "ben", "carl", "dora", "emil", "fay"), ("attic", "barn", "cellar", "garden", "harbour", "tower")
THINGS = ("book", "clock", "lamp", "mirror", "rug", "vase")


def note(courtly: bool) -> dict[str, str]:
    """One note, and the same of the other kind."""
    chosen = [draw.choice([*pairs.items()]) for pairs in (GREETINGS, WISHES, FAREWELLS)]
    greeting, wish, farewell = ([own[courtly], own[not courtly]] for own in chosen)
    name, thing, place = map(draw.choice, (NAMES, THINGS, PLACES))
    told = [f"{greeting[k]} {name} , {wish[k]} the {thing} in the {place} , {farewell[k]}" for k in (0, 1)]
    return {"text": told[0], "style": ("plain", "courtly")[courtly], "truth": told[1], "kept": f"{name} {thing} {place}", "wish": wish[0]}


notes = [note(bool(number % 2)) for number in range(1600)]
asked = [note(False) for _ in range(120)]
for row in notes[:4]:
    print(f"{row['style']:8} {row['text']}")

# %% [markdown]
# ## Learn without pairs
#
# From each note the words are taken out that mark its kind, which are found by counting; a tiny decoder learns to tell the note from what
# is left and the name of the kind.

# %%
to_learn = [{"text": row["text"], "style": row["style"]} for row in notes]
prepare_text(
    PrepareText(
        output=str(work / "tokens"),
        input=(write("texts.jsonl", [{"text": f"{row['text']}…\nThe same, {row['style']}:"} for row in notes]),),
        tokenizer="sentencepiece:400",
    )
)
teller = new_run(
    work / "teller",
    Experiment(
        steps=400,
        batch_size=32,
        model=ModelConfig(context_length=128, num_layers=2, embed_dim=64, num_heads=4, positions="rotary"),
        data=Restyling(files=(write("notes.jsonl", to_learn),), tokenizer=str(work / "tokens"), length=128, written=48),
        objective=Supervised(),
        optimizer=AdamW(learning_rate=3e-3),
        schedule=Schedule(warmup_steps=20, decay="linear"),
        evaluation=Evaluation(every=0),
        samples=Samples(tokens=0),
    ),
)
train(teller)

# %%
lines = applied(teller, "asked", [{"text": row["text"], "style": "courtly"} for row in asked])
for row, line in list(zip(asked, lines, strict=True))[:3]:
    print("given:  ", row["text"])
    print("marks:  ", ", ".join(one["quote"] for one in line["marks"]))
    print("told:   ", line["text"])
    print("should: ", row["truth"], end="\n\n")

# %% [markdown]
# ## What is kept, and what is lost
#
# Names, things and places stand in what is left of a note, so they can be kept. What was wanted stood in a word that marks the kind, and
# went with it.


# %%
def words(text: str) -> list[str]:
    return re.findall(r"\w+", text)


def shares(told: list[str]) -> list[float]:
    """Courtly words and no plain one; name, thing and place kept; the same wish."""
    plain, other = {*GREETINGS, *WISHES, *FAREWELLS}, {*GREETINGS.values(), *WISHES.values(), *FAREWELLS.values()}
    courtly = [bool(other & {*words(text)}) and not plain & {*words(text)} for text in told]
    kept = [{*words(row["kept"])} <= {*words(text)} for row, text in zip(asked, told, strict=True)]
    wish = [WISHES[row["wish"]] in words(text) for row, text in zip(asked, told, strict=True)]
    return [float(np.mean(one)) for one in (courtly, kept, wish)]


NAMED = ["in courtly words", "name, thing, place kept", "the same wish"]
ways = {
    "as it was": [row["text"] for row in asked],
    "the first that was drawn": [(line["candidates"] or [line])[0]["text"] for line in lines],
    "the one of four that is given": [line["text"] for line in lines],
}
figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.2), gridspec_kw={"width_ratios": [3, 2]})
for number, (name, told) in enumerate(ways.items()):
    left.bar(np.arange(3) + 0.27 * (number - 1), shares(told), 0.25, label=name, color=("lightgrey", "tab:orange", "tab:blue")[number])
left.set_xticks(range(3), NAMED)
left.axhline(1 / len(WISHES), xmin=0.68, color="black", linestyle="--", linewidth=1)
left.legend(fontsize=8)
became = np.zeros((len(WISHES), len(WISHES)))
for row, line in zip(asked, lines, strict=True):
    for place, wish in enumerate(WISHES.values()):
        became[[*WISHES].index(row["wish"]), place] += wish in words(line["text"])
right.imshow(became / np.maximum(became.sum(1, keepdims=True), 1), cmap="Blues", vmin=0, vmax=1)
right.set_xticks(range(len(WISHES)), WISHES.values(), rotation=40, fontsize=8)
right.set_yticks(range(len(WISHES)), WISHES, fontsize=8)
right.set_title("what each wish became", fontsize=9)
figure.tight_layout()
plt.show()
for name, told in ways.items():
    print(f"{name}: " + ", ".join(f"{what} {share:.2f}" for what, share in zip(NAMED, shares(told), strict=True)))

# %% [markdown]
# The dashed line is chance. Nobody told the run that to get is to procure, and without pairs it cannot know: it finds words of the other
# kind that fit where the old ones stood. Where what marks a style is also what a text says, read what you were given, or learn from pairs
# instead (`SequenceToSequence`).
