# %% [markdown]
# # 13. Cases and lessons
#
# A medical case of a text, numbers and an image, and lessons for students. All of it is simulated, so that the best possible answer is
# known and a model can be held against it. The first half is for research, not for care.

# %%
import base64
import contextlib
import copy
import dataclasses
import io
import json
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

import omnia
from data import PrepareText, prepare_text
from model import ModelConfig, TextEncoderConfig
from train import AdamW, Evaluation, Experiment, Grading, MedicalCase, NextAnswer, Practice, Samples, Schedule, Supervised
from train import evaluate_run, new_run, train

work, rng = Path(tempfile.mkdtemp(prefix="omnia-")), np.random.default_rng(0)


def write(name: str, rows) -> str:
    path = work / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def applied(run, name: str, rows) -> list[dict]:
    """What `omnia apply` makes of rows."""
    output = work / f"{name}.out.jsonl"
    with contextlib.redirect_stdout(io.StringIO()):
        omnia.main(["apply", str(run.path), "--input", write(f"{name}.jsonl", rows), "--output", str(output)])
    return [json.loads(line) for line in output.read_text().splitlines()]


# %% [markdown]
# ## Simulate cases
#
# Each source tells a little of the outcome: some words are commoner in records of the ill, they are warmer and have less oxygen, and their
# image has a faint spot. Because we know how cases are made, we know the log-odds that each source is worth. One column is a trap: at this
# hospital, the ill are mostly photographed lying. Elsewhere that says nothing.

# %%
ILL, WELL, FAVOURS = ["cough", "chills", "sweating", "breathless"], ["visit", "routine", "exercise", "holiday"], 0.64
MEANS = {"temperature": (37.9, 37.3, 0.6), "oxygen": (94.0, 96.0, 2.2)}  # of the ill, of the well, the deviation
SPOT = np.exp(-((np.arange(32)[:, None] - 21) ** 2 + (np.arange(32) - 10) ** 2) / 40)
DEPTH, NOISE = 0.01, 0.12


def case(lying: tuple[float, float], missing: float) -> tuple[dict, dict]:
    """(a row, the log-odds of its outcome by source). lying: probability of a picture taken lying, of the ill and of the well."""
    ill, odds = bool(rng.random() < 0.5), {}
    of_ill = rng.random(7) < (FAVOURS if ill else 1 - FAVOURS)
    row = {"text": " ".join(rng.choice(ILL if one else WELL) for one in of_ill)}
    odds["text"] = (2 * of_ill.sum() - 7) * np.log(FAVOURS / (1 - FAVOURS))
    odds["table"] = 0.0
    for name, (high, low, deviation) in MEANS.items():
        row[name] = value = round(float(rng.normal(high if ill else low, deviation)), 1)
        odds["table"] += (value - (high + low) / 2) * (high - low) / deviation**2
    pixels = 0.5 + (2 * ill - 1) * DEPTH * SPOT + rng.normal(0, NOISE, SPOT.shape)
    odds["image"] = 2 * DEPTH / NOISE**2 * ((pixels - 0.5) * SPOT).sum()
    file = io.BytesIO()
    Image.fromarray((pixels.clip(0, 1) * 255).round().astype(np.uint8)).save(file, "PNG")
    row["image"] = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
    there = rng.random(3) >= missing
    kept = {name for name, one in zip(odds, there, strict=True) if one} or {"text"}
    row = {name: value for name, value in row.items() if ("table" if name in MEANS else name) in kept}
    view = "lying" if rng.random() < lying[not ill] else "standing"
    return row | {"view": view, "outcome": "ill" if ill else "well"}, odds


HERE, ELSEWHERE = (0.95, 0.1), (0.5, 0.5)
to_learn = [case(HERE, missing=0.2)[0] for _ in range(3000)]
here, elsewhere = ([case(place, missing=0.0) for _ in range(1000)] for place in (HERE, ELSEWHERE))

shown = [next(row for row, _ in here if row["outcome"] == outcome) for outcome in ("ill", "well")]
figure, axes = plt.subplots(1, 4, figsize=(9, 2.4))
for axis, row in zip(axes, shown, strict=False):
    axis.imshow(Image.open(io.BytesIO(base64.b64decode(row["image"].partition(",")[2]))), cmap="gray", vmin=0, vmax=255)
    axis.set_title(f"one who is {row['outcome']}", fontsize=9)
for axis, outcome in zip(axes[2:], ("ill", "well"), strict=True):
    images = [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(row["image"].partition(",")[2])))) for row, _ in here if row["outcome"] == outcome
    ]
    axis.imshow(np.mean(images, 0), cmap="gray", vmin=120, vmax=135)
    axis.set_title(f"mean of the {outcome}", fontsize=9)
for axis in axes:
    axis.axis("off")
plt.show()
print({name: value for name, value in shown[0].items() if name != "image"})

# %% [markdown]
# No eye sees the spot in one image; the mean over many shows it.
#
# ## Learn, and ask with less
#
# One run learns from cases of which any source may be missing, so it can be asked with any of them. The marks are Bayes rates: the accuracy
# of somebody who knows how the cases were made. Nobody can do better, except by luck on these cases.

# %%
prepare_text(
    PrepareText(
        output=str(work / "words"), input=(write("words.jsonl", [row for row in to_learn if "text" in row]),), tokenizer="sentencepiece:350"
    )
)
base = Experiment(
    steps=400,
    batch_size=64,
    model=TextEncoderConfig(
        context_length=48, num_layers=1, embed_dim=16, num_heads=2, init_std=0.3, pooler=False, prediction_head=False, token_types=0
    ),
    data=MedicalCase(
        files=(write("cases.jsonl", to_learn),),
        validation=0.2,
        tokenizer=str(work / "words" / "tokenizer"),
        length=48,
        label="outcome",
        values=("temperature: 30..44", "oxygen: 70..110"),
        explain=False,
    ),
    objective=Supervised(head_dropout=0.0),
    optimizer=AdamW(learning_rate=5e-3, weight_decay=0.1),
    schedule=Schedule(warmup_steps=20, decay="linear"),
    evaluation=Evaluation(every=0),
)
cases = new_run(work / "cases", base)
train(cases)

# %%
SOURCES = {"text": ["text"], "table": list(MEANS), "image": ["image"]}
asked = [
    {"id": f"{source} {number}"} | {name: value for name, value in row.items() if name in (columns or row) and name != "outcome"}
    for source, columns in [*SOURCES.items(), ("all", [])]
    for number, (row, _) in enumerate(here)
]
lines = applied(cases, "asked", asked)
told = np.array([line["differential"][0]["label"] == "ill" for line in lines]).reshape(4, -1)
ill = np.array([row["outcome"] == "ill" for row, _ in here])
odds = np.array([[one[source] for source in SOURCES] for _, one in here]).T
best = np.array([*odds, odds.sum(0)]) > 0
names = [*SOURCES, "all"]
plt.bar(names, (told == ill).mean(1), color="tab:blue", label="the run")
plt.plot(names, (best == ill).mean(1), "_", color="black", markersize=40, label="Bayes rate")
plt.ylim(0.5, 1)
plt.ylabel("right")
plt.legend()
plt.show()

# %% [markdown]
# The run is near the mark with each source. So would be simple ways: counting words, a threshold for each number, the mean difference of
# images. Where sources are as simple as these, try those first. All together tell more than the best of them, which is what joining is for.
#
# ## What an answer rests on
#
# Each line tells how much the log-odds of its answer fall without a source. Of these cases we know what each source is really worth.

# %%
together = lines[3 * len(here) :]
sign = np.where(told[3], 1, -1)
figure, axes = plt.subplots(1, 3, figsize=(9, 3), sharex=True, sharey=True)
for axis, source, worth in zip(axes, SOURCES, odds, strict=True):
    axis.plot([-5, 5], [-5, 5], color="grey", linewidth=1)
    axis.plot(worth * sign, [line["contributions"][source] for line in together], ".", markersize=3)
    axis.set_title(source)
    axis.set_xlabel("true log-odds for the answer")
axes[0].set_ylabel("contribution, as told")
plt.show()

# %% [markdown]
# Points on the line are told what they are worth. Numbers are nearest to it; an image is read as some dozens of waves, whose weights are
# harder to learn.
#
# ## A shortcut, found
#
# The run has not read the column `view`. But the probe looks at every column of the file that has few values, and at what is missing, and
# says how well each of them alone tells the outcome, as an area under the ROC curve: a half is chance.

# %%
probed = json.loads((cases.path / "application.json").read_text())["learned"]
tells = [["the run itself", probed["held"]["area"]], *probed["shortcuts"]]
plt.barh([name for name, _ in tells][::-1], [area for _, area in tells][::-1], color=["tab:blue"] * (len(tells) - 1) + ["black"])
plt.axvline(0.5, color="grey", linestyle="--")
plt.xlim(0.4, 1)
plt.xlabel("area under the ROC curve")
plt.show()

# %% [markdown]
# One column that has nothing to do with the illness tells as much as the whole run. What is missing tells nothing, since here it is missing
# by chance. Give that column to a run, and it is better in this hospital, and worse in another.

# %%
trapped = new_run(
    work / "trapped", dataclasses.replace(base, data=dataclasses.replace(base.data, values=(*base.data.values, "view: lying|standing")))
)
train(trapped)
right = {}
for name, run in (("without view", cases), ("with view", trapped)):
    both = [{key: value for key, value in row.items() if key != "outcome"} for row, _ in [*here, *elsewhere]]
    found = [line["differential"][0]["label"] for line in applied(run, name.replace(" ", "_"), both)]
    true = [row["outcome"] for row, _ in [*here, *elsewhere]]
    right[name] = np.equal(found, true).reshape(2, -1).mean(1)
for place, (name, values) in enumerate(right.items()):
    plt.bar(np.arange(2) + 0.35 * place, values, width=0.35, label=name)
plt.xticks([0.18, 1.18], ["this hospital", "another"])
plt.ylim(0.5, 1)
plt.ylabel("right")
plt.legend()
plt.show()

# %% [markdown]
# ## Students who learn
#
# Six skills, of which each needs the one before. A student who answers an exercise learns from it, if what it needs is there. Some learn
# faster than others; nobody but the simulator knows how well.

# %%
SKILLS = ["count", "add", "subtract", "multiply", "divide", "fractions"]


class Student:
    def __init__(self):
        self.pace, self.known = rng.uniform(0.1, 0.4), np.clip(rng.normal(0.5, 0.3, 6) - 0.15 * np.arange(6), 0, 0.9)
        self.skills, self.correct = [], []

    def likely(self) -> np.ndarray:
        return 0.15 + 0.8 * self.known

    def answer(self, skill: int) -> None:
        self.skills.append(SKILLS[skill])
        self.correct.append(int(rng.random() < self.likely()[skill]))
        ready = self.known[skill - 1] if skill else 1.0
        self.known[skill] += self.pace * ready * (1 - self.known[skill])


def history(in_order: bool) -> tuple[Student, list[float]]:
    """A student behind as many answers as a row holds, and of each answer how likely it was right."""
    student, likely = Student(), []
    for number in range(48):
        skill = int(np.clip(rng.normal(number / 8, 1.5), 0, 5)) if in_order else int(rng.integers(6))
        likely.append(student.likely()[skill])
        student.answer(skill)
    return student, likely


def learned(name: str, in_order: float):
    """A run that learned from students, of whom this share went through the skills in their order, and others by chance."""
    students = [history(rng.random() < in_order)[0] for _ in range(500)]
    rows = [{"student": f"s{number}", "skill": one.skills, "correct": one.correct} for number, one in enumerate(students)]
    experiment = Experiment(
        steps=400,
        batch_size=32,
        model=ModelConfig(context_length=64, num_layers=1, embed_dim=32, num_heads=2, mlp_dim=64, positions="rotary", bias=False),
        data=Practice(files=(write(f"{name}.jsonl", rows),), target=0.5),
        objective=NextAnswer(),
        optimizer=AdamW(learning_rate=3e-3),
        schedule=Schedule(warmup_steps=20, decay="linear"),
        evaluation=Evaluation(every=0),
        samples=Samples(tokens=0),
    )
    run = new_run(work / name, experiment)
    train(run)
    print(evaluate_run(run))
    return run


practice = learned("practice", in_order=0.3)

# %% [markdown]
# ## What one of them knows
#
# Lines are the truth, dots what the run expects from the answers so far.

# %%
one, truth = Student(), []
for number in range(48):
    truth.append(one.likely())
    one.answer(number // 8)
rows = [{"skill": one.skills[:number], "correct": one.correct[:number]} for number in range(1, 48)]
expected = [line["mastery"] for line in applied(practice, "one", rows)]
for place, skill in enumerate(SKILLS):
    points = [(number, line[skill]) for number, line in enumerate(expected, 1) if skill in line]
    (line,) = plt.plot(np.array(truth)[:, place], label=skill)
    plt.plot(*zip(*points, strict=True), ".", color=line.get_color())
plt.xlabel("answers so far")
plt.ylabel("probability of a right answer")
plt.legend(fontsize=7)
plt.show()

# %% [markdown]
# It follows, some answers late. A new skill is first held for better known than it is, by the answers to others, and what is no longer
# practised drifts.
#
# ## Is the model worth it?
#
# Three ways to say whether the next answer is right, for new students: the share that was right of the student's answers to that skill
# (and half where there are none), the run, and the truth, which only the simulator has.

# %%
fresh = [history(rng.random() < 0.3) for _ in range(60)]


def area(said: np.ndarray, correct: np.ndarray) -> float:
    """Under the ROC curve: how often a right answer was held for likelier than a wrong one."""
    difference = said[correct == 1][:, None] - said[correct == 0][None]
    return float((difference > 0).mean() + (difference == 0).mean() / 2)


def share(student: Student, number: int) -> float:
    own = [right for skill, right in zip(student.skills[:number], student.correct, strict=False) if skill == student.skills[number]]
    return (sum(own) + 1) / (len(own) + 2)


correct = np.concatenate([student.correct for student, _ in fresh])
rows = [{"skill": student.skills[:number], "correct": student.correct[:number], "top": 6} for student, _ in fresh for number in range(48)]
lines = applied(practice, "fresh", rows)
asked = [skill for student, _ in fresh for skill in student.skills]
of_run = [{one["skill"]: one["probability"] for one in line["next"]}[skill] for line, skill in zip(lines, asked, strict=True)]
areas = {
    "the share so far": area(np.array([share(student, number) for student, _ in fresh for number in range(48)]), correct),
    "the run": area(np.array(of_run), correct),
    "the truth": area(np.concatenate([true for _, true in fresh]), correct),
}
plt.barh(list(areas)[::-1], list(areas.values())[::-1], color=["black", "tab:blue", "grey"])
plt.xlim(0.5, 0.9)
plt.xlabel("area under the ROC curve")
plt.show()

# %% [markdown]
# ## What comes next?
#
# The run proposes skills that are neither too easy nor too hard, and says why.

# %%
line = applied(practice, "advice", [{"skill": ["count", "add", "add", "add"], "correct": [1, 1, 0, 1], "top": 2}])[0]
for one in line["next"]:
    print(f"{one['skill']}: {one['reason']}")

# %% [markdown]
# Do simulated students learn more by it? Classes of equal students practise by what is proposed, by chance, or all skills in turn, for as
# long. One more is taught by a run that learned from students who all went the same way.

# %%
same_way = learned("same_way", in_order=1.0)
ROUNDS, AT_ONCE = 12, 4
beginners, progress = [Student() for _ in range(60)], {}
for way, run in {"proposed": practice, "proposed, all went one way": same_way, "by chance": None, "in turn": None}.items():
    group = copy.deepcopy(beginners)
    progress[way] = [np.mean([student.known for student in group])]
    for number in range(ROUNDS):
        chosen = rng.integers(0, 6, len(group)) if way == "by chance" else np.full(len(group), number * 6 // ROUNDS)
        if run is not None:
            rows = [{"skill": student.skills, "correct": student.correct, "top": 1} for student in group]
            chosen = [SKILLS.index(line["next"][0]["skill"]) for line in applied(run, f"{run.path.name}{number}", rows)]
        for student, skill in zip(group, chosen, strict=True):
            for _ in range(AT_ONCE):
                student.answer(int(skill))
        progress[way].append(np.mean([student.known for student in group]))
for way, values in progress.items():
    plt.plot(np.arange(ROUNDS + 1) * AT_ONCE, values, label=way)
plt.xlabel("answers of each student")
plt.ylabel("mean of what is known")
plt.legend()
plt.show()

# %% [markdown]
# What is proposed begins best, since it goes on as soon as somebody is ready. Going through all skills in turn ends higher, and needs no
# model. The second run predicts about as well as the first, but its advice is no better than chance: where it learned, whoever was at
# fractions had practised for long, so it cannot tell what somebody knows from how long they have practised. A good prediction is not yet
# good advice. And all this is about students who learn as we made them learn.

# %% [markdown]
# ## Grades
#
# Short answers to six questions, each with two points; a simulated teacher gives half of the marks for each point, and is not quite the
# same every day. Students leave words out, leave points out, and say things that belong elsewhere.

# %%
QUESTIONS = {
    "what is a queue?": "items wait in a line; the first one in leaves first",
    "what is a stack?": "items lie on a pile; the last one in leaves first",
    "what is a loop?": "steps are done again; it ends when a condition holds",
    "what is a variable?": "a name stands for a value; the value can change",
    "what is a function?": "code has a name; it takes arguments and returns a result",
    "what is a list?": "values are kept in order; each has a number as its place",
}


def graded() -> dict:
    question = str(rng.choice(list(QUESTIONS)))
    points, others = (
        QUESTIONS[question].split("; "),
        [one for name, text in QUESTIONS.items() if name != question for one in text.split("; ")],
    )
    had = rng.random(2) < 0.6
    said = [
        " ".join(word for place, word in enumerate(point.split()) if not place or rng.random() < 0.75)
        for point, one in zip(points, had, strict=True)
        if one
    ]
    said += [str(rng.choice(others))] * int(rng.random() < 0.5 or not had.any())
    score = float(np.clip(2.5 * had.sum() + rng.normal(0, 0.4), 0, 5))
    return {"question": question, "reference": QUESTIONS[question], "answer": ". ".join(rng.permutation(said)), "score": round(score, 2)}


answers, new = [graded() for _ in range(600)], [graded() for _ in range(200)]
spoken = write("spoken.jsonl", [{"text": f"{row['reference']} {row['answer']}"} for row in answers])
prepare_text(PrepareText(output=str(work / "spoken"), input=(spoken,), tokenizer="sentencepiece:400"))
grading = new_run(
    work / "grading",
    dataclasses.replace(
        base,
        steps=200,
        batch_size=32,
        model=dataclasses.replace(base.model, context_length=96, embed_dim=32),
        data=Grading(files=(write("graded.jsonl", answers),), validation=0.2, tokenizer=str(work / "spoken" / "tokenizer"), length=96),
        optimizer=AdamW(learning_rate=3e-3),
    ),
)
train(grading)
lines = applied(grading, "new", [{name: value for name, value in row.items() if name != "score"} for row in new])
true, given = np.array([row["score"] for row in new]), np.array([line["score"] for line in lines])
low, high = np.array([[line["low"], line["high"]] for line in lines]).T
common = [len({*row["answer"].split()} & {*row["reference"].split()}) / len({*row["reference"].split()}) for row in new]
plt.errorbar(true, given, [(given - low).clip(0), (high - given).clip(0)], fmt=".", markersize=4, linewidth=0.4)
plt.plot([0, 5], [0, 5], color="grey", linewidth=1)
plt.xlabel("the teacher")
plt.ylabel("the run, with its interval")
plt.show()
print(f"correlation with the teacher: the run {np.corrcoef(true, given)[0, 1]:.2f}, words in common {np.corrcoef(true, common)[0, 1]:.2f}")
print(f"of the intervals {np.mean((low <= true) & (true <= high)):.2f} hold the teacher's score")

# %% [markdown]
# The run is nearer to the teacher than the share of words in common, since it has learned these questions. Of a question that it has not
# learned it would have words alone. A line also tells which points are there, in the student's own words, without giving
# the others away.

# %%
place = next(place for place, line in enumerate(lines) if sum(point["matched"] for point in line["points"]) == 1)
print(new[place]["question"], "-", new[place]["answer"])
print(lines[place]["feedback"])
