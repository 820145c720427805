# %% [markdown]
# # 12. At work
#
# What a run is for: questions answered by templates, by quoted passages or by a person, each with what it rests on; a stream of posts
# that is watched for surges; and slates of which the next click is not the whole reward. Nothing is downloaded: questions and posts are put
# together from a few words, and the passages are Python's own help pages.

# %%
import dataclasses
import json
import random
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from pydoc_data.topics import topics

import omnia
from data import PrepareText, prepare_text
from model import TextEncoderConfig
from train import AdamW, CustomerService, Evaluation, Experiment, FinanceMonitor, Satisfaction, Schedule, Supervised
from train import evaluate_run, new_run, train

work, draw = Path(tempfile.mkdtemp(prefix="omnia-")), random.Random(0)


def write(name: str, rows) -> str:
    path = work / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


ABOUT = {
    "opening_hours": ["when do you open", "opening hours", "are you open on sunday", "what time do you close"],
    "delivery": ["where is my parcel", "my order has not come", "how long does delivery take", "the package is late"],
    "refund": ["i want my money back", "how do i get a refund", "return this and pay me back", "refund my order"],
    "password": ["i forgot my password", "cannot log in", "reset my login", "the password does not work"],
    "none": ["tell me a joke", "what is the weather", "who won the game", "sing a song", "do you like cats", "how old are you"],
}
AROUND = [
    "{}",
    "hello, {}",
    "{} please",
    "hi there. {}",
    "{}, thanks",
    "good morning, {}",
    "excuse me, {}",
    "{}, i have asked before",
    "so {}",
]
log = [{"text": around.format(text), "intent": intent} for intent, texts in ABOUT.items() for text in texts for around in AROUND]
draw.shuffle(log)
answers = [
    {"intent": "opening_hours", "answer": "We are open from nine to five, also on Saturdays."},
    {"intent": "delivery", "answer": "Your order {order} is on its way. Delivery takes three days."},
    {"intent": "refund", "answer": "Send it back within a month, and you get your money back."},
    {"intent": "password", "answer": "Choose 'forgot password' on the page where you log in."},
]
passages = [
    {"id": name, "question": f"How do {name} work in Python?", "answer": " ".join(text.split()[:60])}
    for name, text in sorted(topics.items())[:40]
]
prepare_text(PrepareText(output=str(work / "corpus"), input=(write("words.jsonl", log),), tokenizer="sentencepiece:320"))
files = (write("train.jsonl", log[: len(log) * 4 // 5]),), (write("held.jsonl", log[len(log) * 4 // 5 :]),)
print(len(log), "questions;", len(passages), "passages")

# %% [markdown]
# ## Learn from a log
#
# The application is a kind of data: it trains as any classifier does.

# %%
base = Experiment(
    steps=250,
    batch_size=32,
    model=TextEncoderConfig(context_length=64, num_layers=2, embed_dim=64, num_heads=2, prediction_head=False),
    data=CustomerService(
        files=files[0],
        validation_files=files[1],
        tokenizer=str(work / "corpus" / "tokenizer"),
        length=64,
        templates=write("answers.jsonl", answers),
        passages=write("passages.jsonl", passages),
        nobody="none",
        precision=0.98,
    ),
    objective=Supervised(),
    optimizer=AdamW(learning_rate=2e-3),
    schedule=Schedule(warmup_steps=15, decay="linear"),
    evaluation=Evaluation(every=0),
)
service = new_run(work / "service", base)
train(service)
print(evaluate_run(service)["accuracy"])

# %% [markdown]
# ## Ask it
#
# A conversation has several turns; what an answer still needs is asked for, and taken from the next.

# %%
asked = [
    {"text": "hello, my order has not come", "conversation": "a"},
    {"text": "number 123", "conversation": "a"},
    {"text": "reset my login please"},
    {"text": f"How do {passages[7]['id']} work in Python?"},
    {"text": "do you like dogs"},
    {"text": ""},
]
omnia.main(["apply", str(service.path), "--input", write("asked.jsonl", asked), "--output", str(work / "said.jsonl")])
for question, line in zip(asked, map(json.loads, (work / "said.jsonl").read_text().splitlines()), strict=True):
    print(f"{question['text']!r}\n   {line.get('route', 'error')}: {line.get('answer', line.get('error'))[:110]}")

# %% [markdown]
# ## How many may be answered?
#
# The confidence from which on an intent is believed was chosen on questions that were held out, so that 98 of 100 answers are right.

# %%
kept = json.loads((service.path / "application.json").read_text())["learned"]
plt.plot(*zip(*kept["coverage"], strict=True))
plt.axhline(0.98, linestyle="--", color="grey")
plt.xlabel("share answered")
plt.ylabel("right among them")
plt.title(f"believed from {kept['threshold']:.2f} on")
plt.show()

# %% [markdown]
# ## Watch a stream
#
# Ten days of posts about two shops. On the ninth, one has a bad afternoon. What is usual is learned from the days before.

# %%
FEEL = {
    "negative": ["never again", "so bad", "it broke", "rude people", "far too late"],
    "neutral": ["open at nine", "new shop in town", "they sell shoes", "next to the bank"],
    "positive": ["love it", "so good", "nice people", "great service", "will come again"],
}


def post(feeling: str) -> str:
    return f"{draw.choice(FEEL[feeling])} {draw.choice(['today', 'again', 'really', 'as ever', 'i say'])} {draw.randrange(26**3):05d}"


posts = [{"text": post(feeling), "sentiment": feeling} for _ in range(150) for feeling in FEEL]
shapes = {"files": (write("posts.jsonl", posts),), "validation_files": (write("more.jsonl", posts[::5]),)}
monitor = new_run(
    work / "monitor",
    dataclasses.replace(base, data=FinanceMonitor(**shapes, tokenizer=base.data.tokenizer, length=64, false_alarms=0.02)),
)
train(monitor)
stream = []
for hour in range(24 * 10):
    for topic in ("north", "south"):
        bad = 12 if topic == "south" and hour in range(24 * 8 + 14, 24 * 8 + 18) else 2
        for feeling, mean in (("negative", bad), ("neutral", 2), ("positive", 3)):
            for _ in range(draw.randrange(2 * mean)):
                words = " ".join(draw.choice("red blue green old new big small".split()) for _ in range(4))
                stream.append({"text": f"{draw.choice(FEEL[feeling])} {words}", "topic": topic, "time": 3600 * hour + draw.randrange(3600)})
stream.sort(key=lambda row: row["time"])
omnia.main(["apply", str(monitor.path), "--input", write("stream.jsonl", stream), "--output", str(work / "lines.jsonl")])
lines = [json.loads(line) for line in (work / "lines.jsonl").read_text().splitlines()]
for alert in (line for line in lines if line["kind"] == "alert"):
    print(f"{alert['topic']}: {alert['negative']} negative until {alert['to']}, {alert['expected']} expected; {alert['posts'][0]!r}")

# %%
for topic, colour in (("north", "grey"), ("south", "tab:orange")):
    counts = [line["counts"]["negative"] for line in lines if line["kind"] == "window" and line["topic"] == topic]
    plt.plot(counts, color=colour, label=topic)
plt.xlabel("hours with posts")
plt.ylabel("negative posts")
plt.legend()
plt.show()

# %% [markdown]
# ## Clicks now, and clicks later
#
# Whoever is shown click bait clicks, and comes back less often. A simulated reader has a taste for each of four topics, `a` to `d`; `a` is
# a solid item, `A` the bait of its topic, which pulls more at once and costs satisfaction. Slates are of two items, sessions of eight.

# %%
simulator = Satisfaction()
reader = simulator.prompt(seed=0, row=0)
taste = simulator.users.taste_C[reader.facts["user"]]
favourite = "abcd"[int(taste.argmax())]
solid, bait = 2 * favourite, 2 * favourite.upper()
plans = {"bait": [bait] * 8, "solid": [solid] * 8}
plans |= {f"bait in the last {count}": [solid] * (8 - count) + [bait] * count for count in (2, 4)}
for name, plan in plans.items():
    clicks = [simulator.reply(reader, tuple(plan[: turn + 1])).reward for turn in range(8)]
    plt.plot(range(1, 9), np.cumsum(clicks), "o-", markersize=3, label=f"{name}: {sum(clicks):.2f}")
plt.xlabel("slates")
plt.ylabel("clicks until then")
plt.legend()
plt.show()

# %% [markdown]
# A policy that learned from the next click alone shows bait, one that learned from all that a session still earns finds out the taste and
# keeps the bait for the end: `configs/tables/slates.py` trains both, by PPO with `objective.turn_discount` 0 and 1.
