# %% [markdown]
# # 15. Lists, letters, contracts
#
# Four applications in small: lists of what somebody may like next, letters that nobody wants, clauses of contracts, and hints that do not
# give an answer away. All users, letters, contracts and pupils are made up, so that the truth is known. Nothing is downloaded.

# %%
import contextlib
import dataclasses
import io
import itertools
import json
import random
import re
import tempfile
from collections import Counter
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import omnia
from data import PrepareText, prepare_text
from model import ModelConfig, TextEncoderConfig
from train import AdamW, Evaluation, Experiment, Extraction, Filter, NextItem, Recommendation, Samples, Schedule, Supervised, Tutoring
from train import new_run, off_policy, train, undisguised

work, draw, rng = Path(tempfile.mkdtemp(prefix="omnia-")), random.Random(0), np.random.default_rng(0)


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
# ## Readers with two tastes
#
# A library has books on six topics. Each reader likes two of them, mostly goes on with one of the two for a while, and then takes up the
# other; now and then it is any book. Some books of a topic are far better known than others.

# %%
TOPICS = {
    "sea": "harbour tide sailor lighthouse storm island captain whale anchor".split(),
    "garden": "rose orchard spade blossom gardener hedge tulip greenhouse seed".split(),
    "stars": "comet planet telescope orbit rocket galaxy eclipse moon astronomer".split(),
    "music": "violin choir melody piano conductor opera drummer rhythm organ".split(),
    "kitchen": "oven spice baker recipe pepper dough butter cook pastry".split(),
    "mountains": "glacier summit shepherd ridge valley climber avalanche hut peak".split(),
}
EACH, NEW, STAYS, ANY = 20, 1, 0.7, 0.05
books = []
for topic, words in TOPICS.items():
    pairs = draw.sample([*itertools.combinations(words, 2)], EACH + NEW)
    for number, (one, other) in enumerate(pairs):
        about = " ".join(draw.sample(words, 4))
        kind = "new" if number >= EACH else "book"
        books.append({"item": f"{topic} {kind} {number}", "title": f"The {one} and the {other}", "about": about, "topic": topic})
topic_of = np.array([[*TOPICS].index(book["topic"]) for book in books])
known = np.array([" new " not in book["item"] for book in books])
fame = np.where(known, np.tile([*(1 / (1 + draw.sample(range(EACH), EACH)[place]) for place in range(EACH)), *[0] * NEW], 6), 0)


def likely(shares: np.ndarray, last: int | None, had: list[int]) -> np.ndarray:
    """How likely each book comes next."""
    of_topic = shares if last is None else STAYS * (np.arange(6) == last) + (1 - STAYS) * shares
    left = fame * ~np.isin(np.arange(len(books)), had)
    each = np.array([left[topic_of == topic].sum() for topic in range(6)])
    chosen = of_topic[topic_of] * left / np.maximum(each[topic_of], 1e-9)
    return (1 - ANY) * chosen / chosen.sum() + ANY * left / left.sum()


readers = []
for _ in range(500):
    shares, had, last = np.zeros(6), [], None
    first, second = rng.choice(6, 2, replace=False)
    shares[first] = rng.uniform(0.5, 0.75)
    shares[second] = 1 - shares[first]
    for _ in range(int(rng.integers(6, 15))):
        truth = likely(shares, last, had)
        had.append(int(rng.choice(len(books), p=truth)))
        last = int(topic_of[had[-1]]) if shares[topic_of[had[-1]]] else last
    readers.append({"shares": shares, "had": had[:-1], "next": had[-1], "truth": truth})
events = [
    {"user": f"r{number}", "item": books[book]["item"], "time": time}
    for number, reader in enumerate(readers)
    for time, book in enumerate(reader["had"])
]
print(len(books), "books;", len(events), "events; such as")
for book in readers[0]["had"]:
    print(f"  {books[book]['topic']:10} {books[book]['title']}")

# %% [markdown]
# ## Learn from events
#
# The last book of each reader is kept for the test. A decoder reads books as others read tokens; when the run is first applied, its
# scores are weighed beside simpler ones, such as who else had a book.

# %%
library = new_run(
    work / "library",
    Experiment(
        steps=200,
        batch_size=32,
        model=ModelConfig(
            context_length=20, num_layers=1, embed_dim=32, num_heads=2, mlp_dim=64, positions="rotary", dropout=0.3, bias=False
        ),
        data=Recommendation(files=(write("events.jsonl", events),), items=write("books.jsonl", books), text=("title", "about")),
        objective=NextItem(),
        optimizer=AdamW(learning_rate=6e-3, weight_decay=0.1),
        schedule=Schedule(warmup_steps=20, decay="linear"),
        evaluation=Evaluation(every=0),
        samples=Samples(tokens=0),
    ),
)
train(library)

# %% [markdown]
# ## Lists, with reasons
#
# One reader; then somebody of whom nothing is known but two books that nobody has had yet, so that their texts must do.

# %%
chosen = next(number for number, reader in enumerate(readers) if 0.6 < reader["shares"].max() < 0.65)
newcomer = [books[place]["item"] for place in np.flatnonzero(~known)[:2]]
place_of = {book["item"]: place for place, book in enumerate(books)}
histories = [[books[book]["item"] for book in readers[chosen]["had"]], newcomer]
asked = [{"user": f"r{chosen}", "top": 5, "diversity": 0.3}, {"history": newcomer, "top": 5}]
for history, line in zip(histories, applied(library, "two", asked), strict=True):
    print("had:", "; ".join(books[place_of[one]]["title"] for one in history))
    print("list, by", line["by"])
    for one in line["items"]:
        because = one["reasons"][0]
        print(f"  {one['item'].split()[0]:8} {one['title']:36} for {because['title']!r}: {', '.join(because['words'])}")

# %% [markdown]
# ## What lists are worth
#
# For all readers: is the book that came next among ten that are proposed? Beside the run stand the best-known books; item-kNN in a few
# lines, of all books of a reader and of the last three; and the truth, of somebody who knows the tastes and how likely each book is.

# %%
x_UI, last_UI = np.zeros((2, len(readers), len(books)))
for user, reader in enumerate(readers):
    x_UI[user, reader["had"]] = 1
    last_UI[user, reader["had"][-3:]] = 1
near_II = x_UI.T @ x_UI / np.sqrt(np.outer(x_UI.sum(0), x_UI.sum(0)) + 1e-9)
np.fill_diagonal(near_II, 0)


def best(scores_UI: np.ndarray) -> np.ndarray:
    return np.argsort(-np.where(x_UI > 0, -np.inf, scores_UI), axis=1, kind="stable")[:, :10]


DIVERSITIES = [0.0, 0.1, 0.2, 0.3, 0.4, 0.6]
rows = [{"user": f"r{user}", "diversity": diversity} for diversity in DIVERSITIES for user in range(len(readers))]
proposed = np.array([[place_of[one["item"]] for one in line["items"]] for line in applied(library, "lists", rows)])
diverse = proposed.reshape(len(DIVERSITIES), len(readers), 10)
lists = {
    "best known": best(np.broadcast_to(x_UI.sum(0), x_UI.shape)),
    "item-kNN": best(x_UI @ near_II),
    "item-kNN, last three": best(last_UI @ near_II),
    "the run": diverse[0],
    "the truth": best(np.array([reader["truth"] for reader in readers])),
}
after, tastes = np.array([reader["next"] for reader in readers]), np.array([reader["shares"] > 0 for reader in readers])


def hits(list_UK: np.ndarray) -> float:
    return float((list_UK == after[:, None]).any(1).mean())


def both(list_UK: np.ndarray) -> float:
    """The share of lists that have both tastes of their reader."""
    there_UT = (topic_of[list_UK][:, :, None] == np.arange(6)).any(1)
    return float((there_UT | ~tastes).all(1).mean())


figure, axes = plt.subplots(1, 2, figsize=(10, 3))
colours = dict(zip(lists, ["lightgrey", "silver", "grey", "tab:blue", "black"], strict=True))
axes[0].barh(list(lists)[::-1], [hits(one) for one in lists.values()][::-1], color=[*colours.values()][::-1])
axes[0].set_xlabel("the next book is in the list")
axes[1].plot(
    [both(one) for one in diverse], [hits(one) for one in diverse], "o-", color="tab:blue", markersize=4, label="the run, by diversity"
)
for diversity, one in zip(DIVERSITIES, diverse, strict=True):
    axes[1].annotate(f"{diversity:.1f}", (both(one), hits(one)), textcoords="offset points", xytext=(4, 4), fontsize=8, color="tab:blue")
for name in ("item-kNN", "item-kNN, last three", "the truth"):
    axes[1].plot(both(lists[name]), hits(lists[name]), "s", color=colours[name], label=name)
axes[1].set_xlabel("share of lists with both tastes")
axes[1].set_ylabel("hits")
axes[1].legend(fontsize=7, loc="lower left")
figure.tight_layout()
plt.show()
for name, one in [*lists.items(), *((f"the run, diversity {some}", one) for some, one in zip(DIVERSITIES, diverse, strict=True))]:
    print(f"{name:22} {hits(one):.3f} hits, {np.mean([len({*topic_of[row]}) for row in one]):.1f} topics in a list of ten")

# %% [markdown]
# The run comes nearest to the truth. Item-kNN of the last three books, which needs no training, is close behind, so close that the
# difference may be chance. A little diversity puts the second taste into more lists and costs few hits. But diversity goes by the texts
# of books and knows nothing of tastes: much of it fills lists with topics that their readers never took a book of.
#
# ## What another order would earn
#
# The library's page shows three of six shelves, one of each topic. Until now their order was drawn by chance, and shelves from which a
# reader took many books were likelier to come first. Who looks at a shelf clicks on it as often as the next book is from there, and lower
# places are looked at less. What would the run's order earn? A log tells, if it says how likely each shelf was to be where it was.

# %%
LOOKED_AT = np.array([0.9, 0.6, 0.4])
ORDERS = np.array([*itertools.permutations(range(6), 3)])
wanted_UT = np.array([np.bincount(topic_of, reader["truth"], 6) for reader in readers])
strength_UT = np.array([1 + np.bincount(topic_of[reader["had"]], minlength=6) for reader in readers], float)
chance_UP, left_U = np.ones((len(readers), len(ORDERS))), strength_UT.sum(1)[:, None]
for place in range(3):
    chance_UP *= strength_UT[:, ORDERS[:, place]] / left_U
    left_U = left_U - strength_UT[:, ORDERS[:, place]]
there_PKT = ORDERS[:, :, None] == np.arange(6)
shown_UKT = np.einsum("up,pkt->ukt", chance_UP, there_PKT)

rows = [{"user": f"r{user}", "top": len(books)} for user in range(len(readers))]
whole = [[topic_of[place_of[one["item"]]] for one in line["items"]] for line in applied(library, "whole", rows)]
orders = {
    "the run's order": np.array([[*dict.fromkeys(map(int, topics))][:3] for topics in whole]),
    "one order for all": np.broadcast_to(np.argsort(-x_UI.sum(0) @ (topic_of[:, None] == np.arange(6)))[:3], (len(readers), 3)),
}
users = np.arange(len(readers))[:, None]
truth = {name: float((LOOKED_AT * wanted_UT[users, one]).sum(1).mean()) for name, one in orders.items()}
of_log = float(np.einsum("ukt,ut,k->u", shown_UKT, wanted_UT, LOOKED_AT).mean())


def logged(showings: int) -> tuple[np.ndarray, ...]:
    """(readers, shelves, clicks, probabilities) of visits."""
    who = rng.integers(len(readers), size=showings)
    picked = (chance_UP[who].cumsum(1) > rng.random((showings, 1))).argmax(1)
    shelves = ORDERS[picked]
    clicks = rng.random((showings, 3)) < LOOKED_AT * wanted_UT[who[:, None], shelves]
    return who, shelves, clicks, shown_UKT[who[:, None], np.arange(3), shelves]


SIZES = [100, 300, 1000, 3000, 10000]
figure, axis = plt.subplots(figsize=(8, 3.6))
for number, (name, order) in enumerate(orders.items()):
    colour = ["tab:blue", "tab:orange"][number]
    for place, size in enumerate(SIZES):
        who, shelves, clicks, shown = logged(size)
        estimates = off_policy(clicks, shown, shelves == order[who])
        for which, kind in enumerate(("plain", "normalised")):
            estimate = getattr(estimates, kind)
            axis.errorbar(
                place + 0.1 * (2 * number + which) - 0.15,
                estimate.value,
                [[estimate.value - estimate.low], [estimate.high - estimate.value]],
                fmt="os"[which],
                markersize=4,
                color=colour,
                label=f"{name}, {kind}" if not place else None,
            )
    axis.axhline(truth[name], color=colour, linewidth=1)
axis.axhline(of_log, color="grey", linestyle="--", linewidth=1, label="what the log itself earns")
axis.set_xticks(range(len(SIZES)), [f"{size:,}" for size in SIZES])
axis.set_xlabel("showings in the log")
axis.set_ylabel("clicks of a showing")
axis.legend(fontsize=7)
plt.show()

# %% [markdown]
# Lines are the truth, dots what a log of so many showings says. How right is it? A hundred logs, each with its own chance; and what
# becomes of it if nobody has written down the probabilities, so that all showings which agree count alike.

# %%
name = "the run's order"
print(f"the truth: {truth[name]:.3f}")
for size in (100, 1000):
    found = {"plain": [], "normalised": [], "without probabilities": []}
    for _ in range(100):
        who, shelves, clicks, shown = logged(size)
        agrees = shelves == orders[name][who]
        estimates, blind = off_policy(clicks, shown, agrees), off_policy(clicks, np.full(shown.shape, 0.5), agrees)
        for kind, one in zip(found, (estimates.plain, estimates.normalised, blind.normalised), strict=True):
            found[kind].append((one.value, one.low <= truth[name] <= one.high))
    for kind, ones in found.items():
        values, has = np.array(ones).T
        print(f"{size:5} showings, {kind:22} {values.mean():.3f} ± {values.std():.3f}; {has.mean():.2f} of the intervals hold the truth")

# %% [markdown]
# From a thousand showings on, the log alone tells that the run's order would gain and one order for all would lose, before anybody has
# seen either. About as many intervals hold the truth as should, nineteen of twenty; some of the smallest logs in the picture miss it.
# Intervals of small logs are wide, since few of their showings agree with the order that is asked about. Without the probabilities the
# estimate is too high, and more showings do not help: readers to whom the log already shows what they like agree more often, and click
# more.
#
# ## Letters that nobody wants
#
# Letters of four phrases each. Unwanted ones are mostly made of phrases of their own, wanted ones of others, and both share many words:
# `win`, `free` or `call` tells little by itself. Since we know how often each kind of letter has each kind of phrase, we know how well
# the best filter could do.

# %%
UNWANTED = (
    "you win cash today; free phone for you; call now to claim; your account is closed; click to open the offer; reply to get "
    "the prize; last chance to earn money; we lend you money; the bank needs your code; get a cheap watch today"
).split("; ")
WANTED = (
    "did you win today; are you free for lunch; call me from the bank; the shop is closed now; open the window please; reply "
    "when you get home; the last bus needs an hour; we watch the game; your code is on my phone; i claim the cheap chair"
).split("; ")
OF_UNWANTED, OF_WANTED, FALSE = 0.88, 0.1, 0.01


def letter() -> dict:
    unwanted = draw.random() < 0.5
    of_those = [draw.random() < (OF_UNWANTED if unwanted else OF_WANTED) for _ in range(4)]
    text = ", ".join(draw.choice(UNWANTED if one else WANTED) for one in of_those)
    return {"text": text, "label": "spam" if unwanted else "ham", "phrases": sum(of_those)}


letters = [*{row["text"]: row for row in (letter() for _ in range(5500))}.values()]
to_learn, held_out, fresh = letters[:1500], letters[1500:3000], letters[3000:]
for row in letters[:4]:
    print(f"{row['label']:5} {row['text']}")

prepare_text(PrepareText(output=str(work / "letters"), input=(write("words.jsonl", to_learn),), tokenizer="sentencepiece:350"))
base = Experiment(
    steps=100,
    batch_size=32,
    model=TextEncoderConfig(
        context_length=96, num_layers=1, embed_dim=32, num_heads=2, init_std=0.2, pooler=False, prediction_head=False, token_types=0
    ),
    data=Filter(
        files=(write("letters.jsonl", to_learn),),
        validation_files=(write("held.jsonl", held_out),),
        tokenizer=str(work / "letters" / "tokenizer"),
        length=96,
        false_positives=FALSE,
    ),
    objective=Supervised(ngrams=2),
    optimizer=AdamW(learning_rate=5e-3),
    schedule=Schedule(warmup_steps=10, decay="linear"),
    evaluation=Evaluation(every=0),
    samples=Samples(tokens=0),
)
post = new_run(work / "post", base)
train(post)

# %% [markdown]
# ## Held back, and let through
#
# Beside the run: words counted by hand (naive Bayes), then also in pairs, and the truth, which counts phrases of either kind. The cross
# is where the run itself holds letters back: it chose that on letters that were held out, so that of a hundred wanted ones it holds back
# one.


# %%
def grams(text: str, most: int) -> set[str]:
    """The words of a text, and the runs of up to so many words."""
    words = re.findall(r"\w+", text)
    return {" ".join(words[place : place + size]) for size in range(1, most + 1) for place in range(len(words) - size + 1)}


class Counted:
    """The log-odds of an unwanted letter, by its words; those that nobody has seen tell nothing."""

    def __init__(self, rows: list[dict], most: int):
        self.most = most
        of = {label: [grams(row["text"], most) for row in rows if row["label"] == label] for label in ("spam", "ham")}
        times = {label: Counter(itertools.chain(*some)) for label, some in of.items()}
        self.odds = {
            gram: np.log((times["spam"][gram] + 1) / (len(of["spam"]) + 2)) - np.log((times["ham"][gram] + 1) / (len(of["ham"]) + 2))
            for gram in {*times["spam"], *times["ham"]}
        }

    def __call__(self, rows: list[dict]) -> np.ndarray:
        return np.array([sum(self.odds.get(gram, 0) for gram in grams(row["text"], self.most)) for row in rows])


spam = np.array([row["label"] == "spam" for row in fresh])
by_words, by_pairs = Counted(to_learn, 1), Counted(to_learn, 2)
lines = applied(post, "fresh", [{"text": row["text"]} for row in fresh])
scores = {
    "words counted": by_words(fresh),
    "pairs of words, too": by_pairs(fresh),
    "the run": np.array([line["probability"] for line in lines]),
    "the truth": np.array([row["phrases"] for row in fresh]) + rng.uniform(0, 0.5, len(fresh)),
}
colours = {"words counted": "lightgrey", "pairs of words, too": "grey", "the run": "tab:blue", "the truth": "black"}
for name, one in scores.items():
    order = np.argsort(-one)
    plt.plot((~spam[order]).cumsum() / (~spam).sum(), spam[order].cumsum() / spam.sum(), color=colours[name], label=name)
held = np.array([line["held"] for line in lines])
plt.plot(held[~spam].mean(), held[spam].mean(), "x", color="tab:blue", markersize=9)
plt.xlim(0, 0.06)
plt.ylim(0.5, 1)
plt.xlabel("wanted letters held back")
plt.ylabel("unwanted letters held back")
plt.legend()
plt.show()
line, row = min(((line, row) for line, row in zip(lines, fresh, strict=True) if line["held"]), key=lambda both: both[0]["probability"])
print("held back, if barely:", row["text"])
print("because of", ", ".join(f"{one['word']!r}" for one in line["because"]))
print(f"{held[spam].mean():.3f} of the unwanted letters and {held[~spam].mean():.3f} of the wanted ones are held back")

# %% [markdown]
# The run, which weighs pairs of tokens (`objective.ngrams`) beside an encoder that reads them in order, is about as good as can be. Pairs
# of words that are counted come near, and need no training; single words do not.
#
# ## In disguise
#
# Who sends such letters hides their words: by Cyrillic letters that look Latin, or by characters of no width between the letters. People
# see no difference. Below, these are red.

# %%
CYRILLIC, NO_WIDTH = str.maketrans("aceijopsxy", "асеіјорѕху"), "\u200b"


def disguised(text: str, way: str) -> str:
    return NO_WIDTH.join(text) if way == "no width" else text.translate(CYRILLIC) if way == "Cyrillic" else text


shown = next(row["text"] for row in fresh if row["phrases"] == 4)
figure, axis = plt.subplots(figsize=(10, 1.8))
texts = {way: disguised(shown, way) for way in ("Cyrillic", "no width")}
texts["as it is read"] = undisguised(texts["Cyrillic"])
for number, (name, text) in enumerate(texts.items()):
    axis.text(-1, -number, name, ha="right", fontsize=9)
    place = 0
    for one in text:
        if one == NO_WIDTH:
            axis.plot([place - 0.5] * 2, [-number - 0.25, -number - 0.1], color="tab:red", linewidth=1)
        else:
            axis.text(place, -number, one, family="monospace", fontsize=9, ha="center", color="black" if one.isascii() else "tab:red")
            place += 1
axis.set_xlim(-10, len(shown))
axis.set_ylim(-2.4, 0.6)
axis.axis("off")
plt.show()
for text in ("Привет, как дела?", "I met Дмитрий in Berlin"):
    print(repr(text), "stays" if undisguised(text) == text else "changes")

# %%
WAYS = ["as it is", "Cyrillic", "no width"]
some = fresh[:500]
asked = [{"text": disguised(row["text"], way)} for way in WAYS for row in some]
wanted = np.sort(by_pairs([row for row in held_out if row["label"] == "ham"]))
least = wanted[-1 - int(FALSE * len(wanted))]
bars = {
    "words and pairs counted": by_pairs(asked) > least,
    "the same, undisguised": by_pairs([{"text": undisguised(row["text"])} for row in asked]) > least,
    "the run": np.array([line["held"] for line in applied(post, "disguised", asked)]),
}
bars = {name: one.reshape(len(WAYS), -1) for name, one in bars.items()}
for place, (name, one) in enumerate(bars.items()):
    colour = ["lightgrey", "grey", "tab:blue"][place]
    plt.bar(np.arange(3) + 0.27 * place, one[:, spam[: len(some)]].mean(1), width=0.27, label=name, color=colour)
plt.xticks(np.arange(3) + 0.27, WAYS)
plt.ylim(0, 1.2)
plt.ylabel("unwanted letters held back")
plt.legend(fontsize=7, loc="upper right")
plt.show()
for name, one in bars.items():
    told = [f"{one[way, mine].mean():.3f}" for mine in (spam[: len(some)], ~spam[: len(some)]) for way in range(3)]
    print(f"{name:24} hold back {', '.join(told[:3])} of the unwanted letters and {', '.join(told[3:])} of the wanted ones")

# %% [markdown]
# Who counts words as they come holds back no disguised letter, for want of a word that was seen before. The filter reads what people see,
# by `undisguised`, and so it holds back what it held back before. That is no merit of the model: counting behind `undisguised` does the
# same. A text in Russian stays as it is, and so does a Russian name.
#
# ## What stands where in a contract
#
# Contracts are put together from clauses of five kinds among sentences that have the same words and are none. Each kind has six wordings
# to learn from, then two by which the run chooses how sure is sure enough, since of what it has learned it is too sure, and two that are
# kept for the test.


# %%
def sentences(text: str) -> list[str]:
    return [f"{one.strip()}." for one in " ".join(text.split()).split(".") if one.strip()]


CLAUSES = {
    "law": sentences("""
        This agreement is governed by the law of {country}. The laws of {country} apply to all that is agreed here. What is agreed here
        is read as the courts of {country} would read it. The parties choose the law of {country} for this agreement. This contract is
        subject to the laws of {country}. Courts in {country} decide what the parties do not agree on. The courts of {country} apply
        their own law to this agreement. For this contract the parties choose the rules of {country}. The law of {country} governs this
        contract. Disputes are decided by judges in {country}.
    """),
    "term": sentences("""
        This agreement stays in force for {number} years. The term of this agreement is {number} years from today. This agreement begins
        today and ends after {number} years. The parties are bound by this agreement for {number} years. It is in force until it has run
        for {number} years. The contract ends when {number} years have gone by. This contract is in force for a term of {number} years.
        The parties are bound until {number} years have gone by. The term of this contract ends after {number} years. It lasts until the
        tenth of May.
    """),
    "payment": sentences("""
        The buyer pays each invoice within {number} days. Invoices are settled within {number} days of their date. The price is due
        {number} days after the goods have come. Payment is made in advance, by {number} days. The buyer settles what is due by the end
        of each month. The price is paid in {number} parts, the first one in advance. The buyer pays the price {number} days in advance.
        What is due is settled when the goods have come. An invoice is due {number} days after its date. Money is sent before the goods
        leave the house.
    """),
    "secrecy": sentences("""
        Neither party tells others what it learns of the other. All that one party learns from the other is kept confidential. The
        parties keep the contents of this agreement secret. Confidential papers are given to nobody outside {city}. What the parties
        tell each other is not told to others. Each party keeps the plans of the other secret. Neither party tells others of the
        contents of this contract. The plans of the other party are kept confidential. The parties keep confidential what they learn of
        each other. Nobody else may hear of these plans.
    """),
    "notice": sentences("""
        Either party may end this agreement with a notice of {number} days. A party that wants to leave gives notice {number} weeks
        before. This agreement may be terminated in writing, {number} weeks ahead. Each party may terminate this agreement at the end of
        a month. The buyer may leave this contract with a notice of {number} weeks. To end the contract, a party writes to the other
        {number} days ahead. Either party may end this contract at the end of a month. A party that wants to terminate this contract
        writes {number} weeks ahead. Each party may leave with a notice of {number} weeks. Who wishes to stop says so in good time.
    """),
}
TWO = {
    ("law", "term"): "This agreement is under the law of {country} and is in force for {number} years.",
    ("notice", "payment"): "Who gives notice pays all open invoices within {number} days.",
}
OTHERS = sentences("""
    The headings of this agreement have no effect on how it is read. The law firm of {city} has drawn up this text for both parties. The
    supplier has been in this business for {number} years. The goods come to {city} within {number} days, on days of work. The parties
    met in {city} to talk about the price. Terms in the singular also stand for the plural. The buyer has taken notice of the plans of
    the building. Each party pays for its own journey to {city}. The parties have learned from each other in {number} years of business.
    A confident buyer and an old supplier agree on what follows. The secretary of the supplier keeps a copy of this text in {city}. The
    building in {city} has {number} rooms, of which the buyer uses two. The parties write to each other in the language of {country}.
    The buyer has been in {country} for {number} weeks. The supplier sends {number} papers to {city} with the goods. The other party
    reads this text in {city}. The first part of the building is in {country}. The parties have worked in {city} for {number} years.
    Both read the plans of the house before the end of the month. Goods that come late to {city} are stored for {number} days.
""")
PLACES = {"country": "Norway Spain Peru Japan Kenya", "city": "Oslo Madrid Lima Kyoto Nairobi", "number": "3 5 10 14 30"}
LEARNED, CHOSEN, UNSEEN = 6, 8, 0.3


def filled(sentence: str) -> str:
    return sentence.format(**{name: draw.choice(values.split()) for name, values in PLACES.items()})


def passages(first: int, last: int, others: list[str], times: int) -> list[dict]:
    """Passages with their labels, of these wordings of each kind."""
    found = [{"text": filled(one), "label": [kind]} for kind, some in CLAUSES.items() for one in some[first:last] for _ in range(times)]
    found += [{"text": filled(one), "label": [*kinds]} for kinds, one in TWO.items() for _ in range(times) if not first]
    return found + [{"text": filled(one), "label": []} for one in others for _ in range(times)]


to_learn, to_choose = passages(0, LEARNED, OTHERS[:12], 10), passages(LEARNED, CHOSEN, OTHERS[12:16], 10)


def contract() -> dict:
    """text, and spans: (kind, start, end, whether its wording was kept from learning)."""
    kinds = [kind for kind in CLAUSES if draw.random() < 0.75]
    both = [pair for pair in TWO if {*pair} <= {*kinds} and draw.random() < 0.3]
    parts = [(pair, TWO[pair], False) for pair in both]
    for kind in kinds:
        if not any(kind in pair for pair in both):
            new = draw.random() < UNSEEN
            parts.append(((kind,), draw.choice(CLAUSES[kind][CHOSEN:] if new else CLAUSES[kind][:LEARNED]), new))
    parts += [((), one, False) for one in draw.sample(OTHERS[:12], 5) + draw.sample(OTHERS[16:], 3)]
    draw.shuffle(parts)
    text, spans = "", []
    for of, sentence, new in parts:
        start = len(text) + bool(text)
        text = f"{text} {filled(sentence)}".strip()
        spans += [(kind, start, len(text), new) for kind in of]
    return {"text": text, "spans": spans}


prepare_text(PrepareText(output=str(work / "contracts"), input=(write("clauses.jsonl", to_learn),), tokenizer="sentencepiece:500"))
extractor = new_run(
    work / "extractor",
    dataclasses.replace(
        base,
        data=Extraction(
            files=(write("passages.jsonl", to_learn),),
            validation_files=(write("to_choose.jsonl", to_choose),),
            tokenizer=str(work / "contracts" / "tokenizer"),
            length=64,
            precision=0.9,
        ),
    ),
)
train(extractor)
contracts = [contract() for _ in range(100)]
form = {"text": "The parties met in Oslo to talk about the price. This agreement stays in force for ____ years."}
*found, open_form = applied(extractor, "found", [*({"text": one["text"]} for one in contracts), form])

# %% [markdown]
# ## A contract with its clauses
#
# Coloured is what the run quotes, and a line below is the truth; one clause may be of two kinds.

# %%
COLOURS = dict(zip(CLAUSES, ["tab:blue", "tab:orange", "tab:green", "tab:red", "tab:purple"], strict=True))
WIDTH = 100


def has(some: list[tuple], kind: str, start: int, end: int) -> bool:
    """Whether a clause of this kind is among some, there or partly."""
    return any(of == kind and first < end and start < last for of, first, last, *_ in some)


def lines_of(text: str) -> list[tuple[int, int]]:
    """From where to where each line goes."""
    places = [0]
    while len(text) - places[-1] > WIDTH:
        places.append(text.rindex(" ", places[-1], places[-1] + WIDTH) + 1)
    return [*zip(places, [*places[1:], len(text)], strict=True)]


by_run = [[(one["label"], one["start"], one["end"]) for one in line["clauses"]] for line in found]
missed = [[span for span in one["spans"] if not has(given, *span[:3])] for one, given in zip(contracts, by_run, strict=True)]
shown = next(place for place, one in enumerate(contracts) if missed[place] and len(one["spans"]) > 3)
text, spans = contracts[shown].values()
figure, axis = plt.subplots(figsize=(11, 0.42 * len(lines_of(text))))
for row, (start, end) in enumerate(lines_of(text)):
    for place in range(start, end):
        axis.text(place - start + 0.5, -row, text[place], family="monospace", fontsize=9, ha="center", va="center")
    for kind, first, last in by_run[shown]:
        if max(first, start) < min(last, end):
            axis.barh(-row, min(last, end) - max(first, start), left=max(first, start) - start, height=0.7, color=COLOURS[kind], alpha=0.25)
    for number, (kind, first, last, _) in enumerate(spans):
        if max(first, start) < min(last, end):
            y = -row - 0.38 - 0.08 * any(other[1] == first for other in spans[:number])
            axis.plot([max(first, start) - start, min(last, end) - start], [y] * 2, color=COLOURS[kind], linewidth=2)
for place, (kind, colour) in enumerate(COLOURS.items()):
    axis.text(12 * place, 0.9, kind, color=colour, fontsize=10)
axis.set_xlim(0, WIDTH)
axis.set_ylim(-len(lines_of(text)) + 0.3, 1.4)
axis.axis("off")
plt.show()
for what in ("absent", "review"):
    for one in found[shown][what]:
        place = one.get("nearest", one)
        print(f"{what:7} {one['label']:8} {one['confidence']:.3f} {text[place['start'] : place['end']]}")
print("open:", [one["quote"] for one in open_form["clauses"] if one.get("blank")])

# %% [markdown]
# What is absent is told with the sentence that comes nearest, and what should be looked at is where a label was nearest to being given,
# or not. A place that was left open in a form is told, too.
#
# ## Beside a search for words
#
# Eight contracts, a row each, a colour for each kind of clause: what is there, what the run quotes, and what a search for a word or two
# of each kind finds.

# %%
SEARCH = {
    "law": r"\blaws?\b",
    "term": r"\bterm|years",
    "payment": r"\bpa(?:ys?|id|yment)\b|invoice",
    "secrecy": r"confiden|secret",
    "notice": r"notice|terminat",
}
by_search = [
    [
        (kind, sentence.start(), sentence.end())
        for sentence in re.finditer(r"[^.]+\.", one["text"])
        for kind, pattern in SEARCH.items()
        if re.search(pattern, sentence[0], re.IGNORECASE)
    ]
    for one in contracts
]
figure, axes = plt.subplots(1, 3, figsize=(11, 4), sharex=True, sharey=True)
by = {"true": [one["spans"] for one in contracts], "the run": by_run, "a search": by_search}
for axis, (name, some) in zip(axes, by.items(), strict=True):
    for row in range(8):
        axis.plot([0, len(contracts[row]["text"])], [-row] * 2, color="lightgrey", linewidth=0.5, zorder=0)
        for kind, start, end, *_ in some[row]:
            axis.barh(0.3 - row - 0.15 * [*CLAUSES].index(kind), end - start, left=start, height=0.13, color=COLOURS[kind])
    axis.set_title(name, fontsize=9)
    axis.set_yticks([])
    axis.set_xlabel("characters")
plt.show()


def shares(some: list[list[tuple]]) -> dict[str, float]:
    pairs = [*zip(contracts, some, strict=True)]
    found = {new: [has(given, *span[:3]) for one, given in pairs for span in one["spans"] if span[3] == new] for new in (False, True)}
    right = [has(one["spans"], *span) for one, given in pairs for span in given]
    return {"found of wordings learned": np.mean(found[False]), "of others": np.mean(found[True]), "right": np.mean(right)}


for name, some in {"the run": by_run, "a search": by_search}.items():
    print(f"{name:8}", "; ".join(f"{what} {share:.2f}" for what, share in shares(some).items()))
named = [
    any(
        one["label"] == kind and has([(kind, place["start"], place["end"])], kind, start, end)
        for one in [*line["absent"], *line["review"]]
        for place in [one.get("nearest", one)]
    )
    for line, some in zip(found, missed, strict=True)
    for kind, start, end, _ in some
]
print(f"of {len(named)} clauses that were missed, {sum(named)} are among what is to be looked at, or nearest to what is absent")

# %% [markdown]
# The run finds every clause in a wording that it learned from, and three of four in others; about one quote in ten is of a sentence that
# is no such clause. The search finds fewer of both, and most of what it finds is none. Somebody who has read the wordings could write
# patterns that make no mistake with them, and needs no model; to wordings that nobody foresaw they would be blind. Half of what the run
# missed stands among what is to be looked at, or is named as nearest to what is absent.
#
# ## A tutor who does not give the answer away
#
# Problems of two steps, with their solutions, and dialogues about them. The teachers whom we made up first ask for the work, then what is
# asked, then point at a part of the problem; to pupils who still have nothing new they tell the next step, with its result.

# %%
NAMES, THINGS = "Mia Leo Ana Tom Eva Ben".split(), ["apple", "pencil", "shell", "stamp", "button", "marble"]


def problem() -> dict:
    while True:
        name, thing = draw.choice(NAMES), draw.choice(THINGS)
        have, bags, each = draw.randint(11, 60), draw.randint(3, 9), draw.randint(3, 9)
        got, away = bags * each, draw.random() < 0.5
        total = have - got if away else have + got
        if total > 0 and len({have, bags, each, got, total}) == 5:
            break
    does = "gives away" if away else "buys"
    question = (
        f"{name} has {have} {thing}s. Then {name} {does} {bags} bags of {each} {thing}s each. How many {thing}s does {name} have then?"
    )
    steps = [f"{bags} * {each} = {got}", f"{have} {'-' if away else '+'} {got} = {total}"]
    return {
        "question": question,
        "ground_truth": f"In the bags are {steps[0]} {thing}s.\nIn the end there are {steps[1]}.\n{total}",
        "steps": steps,
        "has": have,
    }


def pupil_says(one: dict, done: int) -> str:
    """What a pupil says who has done so many steps."""
    if done:
        return f"I have {one['steps'][done - 1]}."
    return draw.choice([f"I think it is {one['has'] + draw.choice([1, 2, 3])}.", "I am not sure how.", "Please just tell me."])


SAYS = {
    "generic": ["Tell me how you came to that.", "What did you do so far?"],
    "probing": ["What does the problem ask for?", "What must you know first?"],
    "focus": ["Look at the bags once more.", "Read the second sentence again."],
}


def dialogue() -> dict:
    one, pace, turns, done, waited = problem(), draw.uniform(0.1, 0.7), [], 0, 0
    while len(turns) < 14:
        turns.append({"who": "student", "text": pupil_says(one, done)})
        if done == 2:
            break
        move = ["generic", "probing", "focus", "telling"][min(waited, 3)] if draw.random() < 0.95 else draw.choice([*SAYS])
        text = f"Look: {one['steps'][done]}." if move == "telling" else draw.choice(SAYS[move])
        turns.append({"who": "teacher", "text": text, "move": move})
        went_on = draw.random() < max(pace, 0.6 * (move == "telling"))
        done, waited = done + went_on, 1 if went_on else waited + 1
    return {"question": one["question"], "ground_truth": one["ground_truth"], "turns": turns}


dialogues = [dialogue() for _ in range(400)]
said = write("said.jsonl", [{"text": turn["text"]} for one in dialogues for turn in one["turns"]])
prepare_text(PrepareText(output=str(work / "said"), input=(said,), tokenizer="sentencepiece:400"))
tutor = new_run(
    work / "tutor",
    dataclasses.replace(
        base,
        steps=300,
        data=Tutoring(files=(write("dialogues.jsonl", dialogues),), validation=0.2, tokenizer=str(work / "said" / "tokenizer"), length=96),
        objective=Supervised(),
    ),
)
train(tutor)

# %% [markdown]
# The run learns the next move alone. What is then said is made of the problem by a program: a question back, a part of it, the next step
# with a blank, a step of the same kind with other numbers. A hint with a number of the solution that the pupil has not said would be held
# back. First, a pupil who gets nowhere.

# %%
PACES = {"who get nowhere": 0.0, "who are slow": 0.25, "who are quick": 0.6}
pupils = [{"problem": problem(), "pace": pace, "done": 0, "turns": [], "rungs": []} for pace in PACES.values() for _ in range(20)]
held_back = 0
for number in range(6):
    for one in pupils:
        one["turns"].append({"who": "student", "text": pupil_says(one["problem"], one["done"])})
    rows = [
        {"question": one["problem"]["question"], "ground_truth": one["problem"]["ground_truth"], "turns": one["turns"]} for one in pupils
    ]
    for one, line in zip(pupils, applied(tutor, f"lesson{number}", rows), strict=True):
        one["turns"].append({"who": "teacher", "text": line["answer"], "move": line["move"]})
        one["rungs"].append(line["rung"])
        held_back += line["held_back"]
        one["done"] = min(one["done"] + (draw.random() < one["pace"]), 2)
print(pupils[0]["problem"]["question"])
for turn in pupils[0]["turns"]:
    print(f"  {turn['who']:8} {turn['text']}")

# %% [markdown]
# From rung to rung of this ladder hints tell more, but never the result. Sixty pupils, a line each:

# %%
RUNGS = ["talk", "question", "focus", "blank", "similar", "done"]
figure, axes = plt.subplots(1, 3, figsize=(10, 2.8), sharey=True)
for number, (axis, name) in enumerate(zip(axes, PACES, strict=True)):
    for one in pupils[20 * number : 20 * number + 20]:
        levels = [RUNGS.index(rung) + draw.uniform(-0.2, 0.2) for rung in one["rungs"]]
        axis.plot(range(1, 7), levels, ".-", linewidth=0.7, color="tab:blue")
    axis.set_title(f"pupils {name}", fontsize=9)
    axis.set_xlabel("turn")
axes[0].set_yticks(range(6), RUNGS)
figure.tight_layout()
plt.show()


def gives_away(row: dict) -> list[bool]:
    """Of each turn of the teacher, whether it has a number of the solution that neither the problem nor the pupil has said."""
    said, found = {*re.findall(r"\d+", row["question"])}, []
    for turn in row["turns"]:
        numbers = {*re.findall(r"\d+", turn["text"])}
        if turn["who"] == "teacher":
            found.append(bool(numbers & {*re.findall(r"\d+", row["ground_truth"])} - said))
        else:
            said |= numbers
    return found


lessons = [one["problem"] | {"turns": one["turns"]} for one in pupils]
for name, rows in {"the teachers": dialogues, "the run": lessons}.items():
    told = [one for row in rows for one in gives_away(row)]
    print(f"{name}: of {len(told)} turns {sum(told)} give a number away")
print(held_back, "hints were held back")

# %% [markdown]
# Who gets nowhere climbs the ladder, mostly with one step back; who is quick is soon done. No turn of the run gives a number away, and
# about one in five of our teachers' turns does. Nothing had to be held back, as hints that a program makes of a problem leave results out
# by themselves; holding back is for hints that a chat model words (`data.writer`). To choose the move, the rule by which we made our
# teachers up would do as well. A run pays where teachers follow a rule that nobody can write down. Whether pupils learn more by hints
# than by being told, no pupil can tell whom we made up.
