"""A run that cannot learn, or would stop in the middle, does not start: what is said before its first step, and of whom."""

import dataclasses
import json
import os

import numpy as np
import pytest

from data.errors import UserError
from data.tokenizer import byte_tokenizer, character_tokenizer
from tests.train.rl.policies import TINY
from train.experiment import Evaluation
from train.generation.chat import Chat
from train.rl.environments.code import PassesTests
from train.rl.environments.environment import Environment, Prompt, Reply, Simulator
from train.rl.environments.files import PromptFile
from train.rl.environments.text_tasks import Addition, Letters
from train.rl.environments.word_problems import WordProblems
from train.rl.options import PPO, Demonstrations, PreferenceLearning, Preferences, Prompts, RewardModelling
from train.rl.policy.questions import Questions
from train.rl.rewards.rewards import Judged, Length, Reward, RewardModel, Sum
from train.runs.directory import open_corpora
from train.runs.resolve import check_resume, resolve
from train.sources.dataset import dataset_of
from train.sources.examples import ExampleBatches, Examples

POLICY = PPO(group_size=2, response_tokens=4, critic="shared", kl_coefficient=0.0)


def questions(*environments, start="", **data) -> Questions:
    data = Prompts(environments=environments, **{"prompt_tokens": 16, "validation": 8} | data)
    experiment = dataclasses.replace(TINY, data=data, objective=POLICY, start=start)
    return Questions(experiment, open_corpora(experiment))


def write(path, *records) -> str:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


def sums(tmp_path, *others, count=40) -> str:
    """Prompts enough for both splits, and others behind them."""
    return write(tmp_path / "sums.jsonl", *({"prompt": f"{n}+1=", "answer": n + 1, "response": str(n + 1)} for n in range(count)), *others)


# -------------------------------------------------------------------------------------------------------------------- prompts


def test_of_good_prompts_what_is_not_used_is_said(tmp_path):
    """Fields that stand in no template, records that are left out; of drawn prompts nothing."""
    problem, texts = {"equation": "X=(22.0-14.0)", "ans": 8.0}, [f"{'x' * n} : 22 , 14"[-12:] for n in range(40)]
    wrong = {**problem, "original_text": "22 , 14", "ans": 1}
    path = write(tmp_path / "problems.jsonl", *({**problem, "original_text": text} for text in texts), wrong)
    assert questions(Addition(), PromptFile(sums(tmp_path)), WordProblems(path)).check() == [
        f"{tmp_path}/sums.jsonl: in no template: answer (a reward may read them)",
        f"{path}: 1 of 41 problems are left out: their equations do not come to their answers",
    ]


@pytest.mark.parametrize(
    "other, says",
    [
        ({"prompt": "9+1="}, "line 41: has no 'answer', which has to be a number"),
        ({"prompt": "9+1=", "answer": "ten"}, "line 41: answer is 'ten', and not a number, or text with one"),
        ({"prompt": None, "answer": 10}, "line 41: prompt is null"),
        ({"prompt": "9+1=", "answer": 10, "x": "\u20ac"}, ""),
        ({"prompt": "9\u20ac+1=", "answer": 10}, "line 41: character '\u20ac' is not among"),
        ({"prompt": "9" * 20, "answer": 10}, "line 41: has 21 tokens, and data.prompt_tokens is 16"),
    ],
)
def test_a_single_record_is_found_before_the_first_step(tmp_path, other, says):
    """Of 41, in whichever split it is; what is not used may be anything."""
    asked = questions(PromptFile(sums(tmp_path, other)))
    if not says:
        assert asked.check() == [f"{tmp_path}/sums.jsonl: in no template: answer, x (a reward may read them)"]
        return
    with pytest.raises(UserError, match=says) as raised:
        asked.check()
    assert str(raised.value).count("\n") == 1


def test_a_split_without_prompts_is_found_before_the_first_step(tmp_path):
    same = write(tmp_path / "same.jsonl", *[{"prompt": "1+1=", "answer": 2}] * 50)
    with pytest.raises(UserError, match=r"has no prompts for \w+: 50 prompts, 1 of them different"):
        questions(PromptFile(same)).check()
    empty = tmp_path / "empty.jsonl"
    empty.write_text("\n")
    with pytest.raises(UserError, match="empty.jsonl: holds no records"):
        questions(PromptFile(sums(tmp_path), str(empty))).check()
    with pytest.raises(UserError, match="line 1: has no 'answer'"):
        questions(PromptFile(sums(tmp_path), write(tmp_path / "held.jsonl", {"prompt": "1"}))).check()
    shared = questions(PromptFile(sums(tmp_path), sums(tmp_path))).check()
    assert any("40 of 40 prompts for validation are trained on too" in line for line in shared)


def test_prompts_that_are_too_long_are_borne_as_far_as_is_said(tmp_path):
    """16 rows of training and 8 of validation take a tenth of prompts that do not fit."""
    file = PromptFile(sums(tmp_path, *({"prompt": f"{n:020}", "answer": n} for n in range(10))))
    with pytest.raises(UserError, match="--data.max-unusable"):
        questions(file).check()
    said = questions(file, max_unusable=16).check()
    assert any("prompts for train: about" in line and "left out" in line for line in said)
    with pytest.raises(UserError, match="none of .* fits data.prompt_tokens 3: the shortest has 5"):
        questions(file, max_unusable=999, prompt_tokens=3).check()


def test_what_a_template_adds_to_a_prompt_counts(tmp_path):
    turns = [[{"role": "user", "content": f"{n}+1="}, {"role": "assistant", "content": str(n + 1)}] for n in range(40)]
    file = PromptFile(write(tmp_path / "chats.jsonl", *({"messages": each, "answer": n + 1} for n, each in enumerate(turns))))
    template = "{% for turn in messages %}{{ turn.content }}{% endfor %} was asked, and the answer is "
    experiment = dataclasses.replace(TINY, data=Prompts(environments=(file,), prompt_tokens=16, validation=8), objective=POLICY)
    with pytest.raises(UserError, match="none of .* fits data.prompt_tokens 16: the shortest has 34"):
        Questions(experiment, [Examples(file, byte_tokenizer(), chat=Chat(template))]).check()


@dataclasses.dataclass(frozen=True)
class Faulty(Environment):
    """Addition, with a fault of a user's in it."""

    fault: str = "reward"

    def draw(self, rng):
        if self.fault == "draw" and rng.random() < 0.01:
            return Prompt(str({}["key"]))
        if self.fault == "role":
            return Prompt(str(rng.randrange(999)), messages=(("human", "1"),))
        return Prompt(str(rng.randrange(999)), {"answer": 1})

    def score(self, prompt, response):
        return {"reward": lambda: 1.0 / len(response), "none": lambda: None, "text": lambda: "high", "good": lambda: True}[self.fault]()


@dataclasses.dataclass(frozen=True)
class Mute(Simulator):
    """Answers with what no tokenizer of letters knows."""

    @property
    def alphabet(self):
        return "0123456789"

    def draw(self, rng):
        return Prompt(str(rng.randrange(999)))

    def reply(self, prompt, said):
        return Reply("\u20ac")


@pytest.mark.parametrize(
    "environment, says",
    [
        (Faulty("draw"), "prompts for train: KeyError: 'key' .*test_checks.py, line"),
        (Faulty("reward"), "row 0, prompt '.*': ZeroDivisionError: float division by zero .*test_checks.py, line"),
        (Faulty("none"), "TypeError"),
        (Faulty("role"), "KeyError: 'human'"),
        (Faulty("text"), "ValueError: could not convert string to float: 'high'"),
        (Environment(), "Environment: gives no prompts"),
        (Judged(Addition(), Reward()), "Reward: does not say what a response is worth"),
        (Mute(), "what is answered to nothing, after the prompt .*: character '\u20ac'"),
        (PromptFile(), "PromptFile: no path"),
        (PromptFile("nothing.jsonl"), "nothing.jsonl: No such file"),
        (Judged(Addition(), RewardModel()), "a reward model needs a run"),
        (Judged(Addition(), PassesTests()), "has no 'tests'"),
    ],
)
def test_the_class_and_the_line_of_a_fault_are_named_before_the_first_step(environment, says):
    with pytest.raises(UserError, match=says) as raised:
        questions(environment).check()
    assert str(raised.value).count("\n") == 1


@dataclasses.dataclass(frozen=True)
class Sometimes(Reward):
    """Fails at one response."""

    def score(self, prompt, response):
        return 1.0 / (len(response) - 3)


def test_the_row_at_which_a_reward_fails_is_named():
    asked = questions(Judged(Addition(), Sometimes()), Letters(length=3))
    asked.check()
    taken = asked.take(10, 6)
    bad = next(question for question in taken if question.environment == 0 and question.row > 11)
    texts = ["abc" if question is bad else "ab" for question in taken]
    with pytest.raises(UserError, match=f"Judged: row {bad.row}, .*: ZeroDivisionError: .*test_checks.py, line"):
        asked.scores(taken, texts, np.ones((6, 4), np.int32), np.ones((6, 4), np.float32))


@dataclasses.dataclass(frozen=True)
class Whole(Environment):
    """Gold that is what it is told to be."""

    gives: object = None

    def draw(self, rng):
        return Prompt(str(rng.randrange(999)))

    def scores(self, prompts, responses, ids, mask):
        return np.ones(len(prompts), np.float32)

    def gold(self, prompts, responses, ids, mask):
        return {"integers": [1] * len(prompts), "tokens": np.ones(mask.shape), "short": np.ones(0)}.get(self.gives)


def test_gold_is_checked_as_scores_are():
    for gives in ("integers", "short"):
        with pytest.raises(UserError, match="Whole: gave scores of"):
            questions(Whole(gives)).check()
    mixed = questions(Whole("tokens"), Addition())  # one of them knows no gold, also where a batch has none of its prompts
    taken = [question for question in mixed.take(0, 8) if question.environment == 0]
    drawn = [""] * len(taken), np.ones((len(taken), 4), np.int32), np.ones((len(taken), 4))
    assert mixed.gold(taken, *drawn) is None
    assert questions(Whole("tokens"), Judged(Addition(), Length())).gold(taken, *drawn).tolist() == [4.0] * len(taken)
    asked = questions(Whole("tokens"))
    worth = asked.gold(asked.take(0, 3), [""] * 3, np.ones((3, 4), np.int32), np.ones((3, 4)))
    assert worth.tolist() == [4, 4, 4] and questions(Whole(None)).check() == []


def test_a_file_that_changes_during_a_run_changes_the_next_run_alone(tmp_path):
    file = PromptFile(sums(tmp_path))
    for environment in (file, Judged(file, Length())):
        path = sums(tmp_path)
        first = questions(environment)
        before = [question.prompt.text for question in first.take(0, 50)]
        write(tmp_path / "sums.jsonl", *({"prompt": f"{n}+2=", "answer": n + 2} for n in range(40)))
        assert [question.prompt.text for question in first.take(0, 50)] == before
        assert all(question.prompt.text.endswith("+2=") for question in questions(environment).take(0, 50))
        assert file.path == path


# ------------------------------------------------------------------------------------------------- demonstrations and comparisons


def batches(data, tmp_path, objective=None, **fields) -> ExampleBatches:
    byte_tokenizer().save(str(tmp_path / "start"))
    fields |= {"objective": objective or TINY.objective, "data": data, "start": str(tmp_path / "start")}
    experiment = dataclasses.replace(TINY, **fields)
    return dataset_of(experiment).batches(open_corpora(experiment))


def test_demonstrations_that_teach_nothing_are_refused(tmp_path):
    """Each source by itself; in either split."""
    good, path = Addition(), sums(tmp_path)
    for environment, says in (
        (PromptFile(path, response_template="{wrong}"), "line 1: has no field 'wrong'"),
        (PromptFile(path, prompt_template="{prompt}" * 9), "examples for train: none of .* fits 12 tokens: the shortest has"),
        (PromptFile(path, response_template=""), "every response for train is empty"),
        (Faulty("good"), "shows no responses to imitate"),
    ):
        with pytest.raises(UserError, match=says):
            batches(Demonstrations(environments=(good, environment), validation=8), tmp_path)
    late = sums(tmp_path, {"prompt": "9+1=", "response": None})
    with pytest.raises(UserError, match="line 41: response is null"):
        batches(Demonstrations(environments=(PromptFile(late),), validation=8), tmp_path)
    sums(tmp_path)
    assert batches(Demonstrations(environments=(good, PromptFile(path)), validation=8), tmp_path).remarks == [
        f"{path}: in no template: answer (a reward may read them)"
    ]
    held = write(tmp_path / "held.jsonl", {"prompt": "1" * 30, "response": "1"}, {"prompt": "1", "response": "1"})
    several = Demonstrations(environments=(PromptFile(path, held),), validation=2)
    said = batches(several, tmp_path).remarks
    assert any("examples for validation: about 50% have more than 12 tokens" in line for line in said)
    write(tmp_path / "held.jsonl", *[{"prompt": "1" * 30, "response": "1"}] * 40, {"prompt": "1", "response": "1"})
    with pytest.raises(UserError, match="none of 1 examples for validation fits"):
        batches(several, tmp_path, evaluation=Evaluation(rows=1))


def pairs(path, *others, length=1, count=12) -> str:
    return write(path, *({"prompt": f"{n}+", "chosen": "1" * length, "rejected": "2" * length} for n in range(count)), *others)


def test_comparisons_that_teach_nothing_are_refused_and_what_is_left_out_is_said(tmp_path):
    good, long = pairs(tmp_path / "good.jsonl"), pairs(tmp_path / "long.jsonl", length=30)
    with pytest.raises(UserError, match="long.jsonl: comparisons for training: none of 9 fits 11 tokens: the shortest has 33"):
        batches(Preferences(files=(good, long)), tmp_path, PreferenceLearning())
    with pytest.raises(UserError, match="twice"):
        batches(Preferences(files=(good, good)), tmp_path, PreferenceLearning())
    one = pairs(tmp_path / "one.jsonl", count=1)
    with pytest.raises(UserError, match="one.jsonl: too few"):
        batches(Preferences(files=(good, one)), tmp_path, PreferenceLearning())
    with pytest.raises(UserError, match="line 1: objective.loss is score, and there are none"):
        batches(Preferences(files=(good,)), tmp_path, RewardModelling(loss="score", centre=0.0))
    others = [{"prompt": "p", "chosen": "a" * 40, "rejected": "b", "id": 1}] * 6 + [
        {"prompt": "q", "chosen": "a", "rejected": "a", "origin": 2}
    ]
    said = "\n".join(batches(Preferences(files=(pairs(tmp_path / "some.jsonl", *others),)), tmp_path, PreferenceLearning()).remarks)
    assert "not used: id, origin" in said and "1 of 19 comparisons are left out" in said
    assert "have more than 11 tokens" in said and "1 of" in said and "stand in training comparisons too" in said
    assert batches(Preferences(files=(good,)), tmp_path, PreferenceLearning()).remarks == []


def test_what_a_tokenizer_does_not_know_is_named_with_its_line(tmp_path):
    path = pairs(tmp_path / "pairs.jsonl", {"prompt": "p", "chosen": "1", "rejected": "2"})
    character_tokenizer("0123456789+").save(str(tmp_path / "start"))
    experiment = dataclasses.replace(TINY, objective=PreferenceLearning(), data=Preferences(files=(path,)), start=str(tmp_path / "start"))
    with pytest.raises(UserError, match="line 13: character 'p' is not among"):
        dataset_of(experiment).batches(open_corpora(experiment))


def test_paths_are_those_of_any_folder_and_a_data_set_of_tfds_stays_a_name():
    experiment = dataclasses.replace(TINY, data=Preferences(files=("tfds:a", "b")))
    source = Questions(dataclasses.replace(TINY, data=Prompts(environments=(Addition(),)), objective=POLICY), open_corpora(TINY)).tokenizer

    class Source:
        ids = 3
        path = ""

        def tokenizer(self):
            return source

    files = resolve(experiment, [Source()]).data.files
    assert files[0] == "tfds:a" and files[1] == os.path.abspath("b")
    judged = Judged(PromptFile("tfds:a", "b", reward=Sum((RewardModel("c"), Length()))), RewardModel("d"))
    experiment = dataclasses.replace(experiment, data=Prompts(environments=(Addition(), WordProblems("e"), judged)))
    resolved = resolve(experiment, [Source()])
    _, problems, found = resolved.data.environments
    here = os.path.abspath
    assert (problems.path, problems.validation_path, found.environment.path) == (here("e"), "", "tfds:a")
    assert (found.environment.validation_path, found.reward.run) == (here("b"), here("d"))
    assert found.environment.reward.rewards[0].run == here("c")
    check_resume(dataclasses.replace(experiment, model=resolved.model), resolved)  # a run of before paths were made absolute goes on
    moved = resolved.data.with_paths(lambda path: f"/elsewhere{path}")
    check_resume(resolved, dataclasses.replace(resolved, data=moved))  # what files hold is known by a digest
    with pytest.raises(UserError, match="data.environments"):
        check_resume(experiment, dataclasses.replace(experiment, data=Prompts(environments=(Addition(),))))
