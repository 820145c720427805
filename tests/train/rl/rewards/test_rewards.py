"""What responses are worth: rewards by their definitions, programs within their bounds, files of prompts and labels."""

import dataclasses
import functools
import json
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from data.errors import UserError
from data.tokenizer import character_tokenizer
from train.rl.environments.code import PassesTests, Programs, PythonFunctions, PythonParses
from train.rl.environments.environment import Environment, Prompt
from train.rl.environments.files import PromptFile
from train.rl.environments.sandbox import Limits, passed
from train.rl.environments.simulators import Recommendations, SlotFilling
from train.rl.environments.text_games import Calculator, SecretCode, TreasureMap
from train.rl.environments.text_tasks import Addition, Bandit, Countdown, KeyFacts, Letters, RandomWalks, Reviews
from train.rl.environments.word_problems import WordProblems
from train.rl.rewards.rewards import (
    Answer,
    Format,
    Judged,
    Length,
    Lexicon,
    Repetition,
    Reward,
    Similarity,
    Sum,
    edit_distance,
    last_number,
)
from train.sources.encoding import Transcriber
from train.sources.records import read_comparisons
from train.verbs.label import choose, label, whole_or_nothing

ROOT = Path(__file__).parents[4]


def one(reward: Reward, response: str, **facts) -> float:
    return float(reward.scores([Prompt("p", facts)], [response], np.zeros((1, 4), int), np.ones((1, 4)))[0])


def test_numbers_are_equal_whatever_their_notation():
    for text, value in (("it is 1,234.50", 1234.5), ("so 1/2", 0.5), ("50e-2", 0.5), ("-3 then -7", -7), ("a 1/0", None), ("none", None)):
        assert last_number(text) == value
    assert one(Answer(), "the answer is 0.5", answer="1/2") == 1 and one(Answer(), "6", answer="5 or 7") == 0


def test_a_response_of_any_kind_is_worth_something():
    """Odd digits, numbers beyond all measure, nesting, half characters: no reward raises, and what is no right answer earns nothing."""
    odd = ["", "1" * 4301, "1" * 5000 + "/3", "3/" + "1" * 5000, "1e999999999", "-1e-999999999", "1e5/0", "inf nan", "\u0663", "²"]
    odd += ["1e", "\0"]
    odd += ["(" * 9000, "[" * 9000 + "]" * 9000, "\ud800", "-" * 9000 + "1", "x" * 9000, "9e99*" * 16, "1_0", "0x10", "\ufffd" * 99]
    odd += ["def f():\n\treturn 1\n  x", "\n".join("if x:" for _ in range(200)), "lambda: " * 900, "1is 2\n" * 4]
    rewards = [Answer(), Similarity(), Format("a*"), Lexicon(("a",)), Length(), Repetition(), PythonParses()]
    environments = [RandomWalks(), Letters(), Addition(), Countdown(), Reviews(), Bandit(), KeyFacts(), Programs(), WordProblems("a")]
    environments += [SlotFilling(), Recommendations(), TreasureMap(), SecretCode(), Calculator()]
    problem = Prompt("p", {"numbers": [1.0], "answer": 1.0})
    for response in odd:
        for reward in rewards:
            assert np.isfinite(one(reward, response, answer="7"))
        for environment in environments:
            prompt = problem if isinstance(environment, WordProblems) else environment.prompt(0, 1)
            assert np.isfinite(environment.scores([prompt], [response], np.zeros((1, 1), int), np.ones((1, 1)))).all()
    assert one(Answer(), "so \u0663", answer=3) == 1  # digits are digits in any script
    assert one(Answer(), "1e999999999", answer=999999) == 0 and last_number("1e999999999") is None
    assert last_number(".5") == last_number("-.5") * -1 == Fraction(1, 2) and last_number("v.5") == 5


@pytest.mark.parametrize(
    "reward, facts, says",
    [
        (Answer(), {"anser": 5}, "has no 'answer'"),
        *(
            (Answer(), {"answer": value}, "not a number, or text with one")
            for value in ("no number", "", None, True, [5], float("nan"), "1e9999")
        ),
        (Answer(), {"answer": "1" * 4301}, "not a number"),
        *((Similarity(), {"answer": value}, "not text or a number") for value in (None, ["a"], " ")),
        (Similarity("gold"), {"answer": "a"}, "has no 'gold'"),
        *(
            (PassesTests(), {"tests": value}, "not a list of Python statements")
            for value in ("assert f()", [], [1], ["assert ("], None, [""])
        ),
        (Sum((Length(), Answer())), {}, "has no 'answer'"),
        (Lexicon(), {}, "has no words"),
    ],
)
def test_facts_that_could_never_earn_anything_are_refused_before_a_run(reward, facts, says):
    """The first prompt that lacks them is named, with its line, and how many do."""
    good = Prompt("p", {"answer": 5, "gold": "b", "tests": ["assert f(2) == 4", "for x in ():\n    pass"]}, where="file: line 1")
    bad = Prompt("p", facts, where="file: line 2")
    with pytest.raises(UserError, match=says) as raised:
        reward.check([good, bad, bad])
    if facts:
        assert "file: line 2" in str(raised.value) and "2 of 3 prompts" in str(raised.value)
        reward.check([good])
        Judged(Letters(), reward).check([good])


@pytest.mark.parametrize(
    "make",
    [
        *(functools.partial(Letters, length=0), functools.partial(Addition, digits=0), functools.partial(Countdown, largest=0)),
        *(functools.partial(Bandit, arms=27), functools.partial(Format, "("), functools.partial(Lexicon, ("two words",))),
        *(functools.partial(Repetition, 0), functools.partial(Length, unit=0), functools.partial(Sum, (Length(),), (float("nan"),))),
        *(functools.partial(TreasureMap, size=1), functools.partial(TreasureMap, walls=1.0), functools.partial(TreasureMap, turns=2)),
        *(functools.partial(Calculator, factor=1), functools.partial(SecretCode, largest=10), functools.partial(Recommendations, slate=0)),
    ],
)
def test_settings_that_allow_of_no_prompt_or_score_are_refused(make):
    with pytest.raises(ValueError, match=make.func.__name__):
        make()


def test_an_environment_whose_prompts_are_all_of_one_split_says_so():
    with pytest.raises(UserError, match="none of 10000 prompts that it sampled is for"):
        print([Constant().prompt(0, 0, split) for split in ("train", "validation")])


@dataclasses.dataclass(frozen=True)
class Constant(Environment):
    """One prompt, which cannot be in two splits."""

    def draw(self, rng):
        return Prompt("always the same")


def test_rewards_by_their_definitions():
    assert one(Format(r"a+\n?b"), "aa\nb") == 1 and one(Format("a"), "ab") == 0
    assert one(Lexicon(("Good",), ("bad", "ill")), "Good, good and bad.") == 1
    assert one(Length(most=4, unit=2), "12345") == -0.5 and one(Length(most=5), "12345") == 0
    assert one(Repetition(2), "a b a b a") == -0.5 and one(Repetition(3), "a b") == 0
    assert one(Similarity(), "kitten", answer="sitting") == pytest.approx(1 - 3 / 7)
    total = Sum((Lexicon(("a",)), Length(most=0, unit=1)), (2.0, 0.5))
    assert one(total, "a") == 2.0 * 1 + 0.5 * -1


def test_the_edit_distance_is_that_of_its_recurrence():
    def slow(a: str, b: str) -> int:
        if not a or not b:
            return len(a) + len(b)
        return min(slow(a[1:], b) + 1, slow(a, b[1:]) + 1, slow(a[1:], b[1:]) + (a[0] != b[0]))

    rng = np.random.default_rng(0)
    for _ in range(40):
        a, b = ("".join(rng.choice(list("abc"), rng.integers(0, 6))) for _ in range(2))
        assert edit_distance(a, b) == slow(a, b)


def test_programs_stay_within_their_bounds(tmp_path):
    """What ends well has passed; errors, exits, loops, memory and files have not, and nothing is left behind."""
    target = tmp_path / "written"
    programs = {
        "assert 1 + 1 == 2": True,
        "print('x' * 10**7)": True,
        "assert 1 + 1 == 3": False,
        "def f(:": False,
        "import sys; sys.exit(0)": False,
        "import os; os._exit(0)": False,
        "while True: pass": False,
        "x = 'a' * (1 << 30)": False,
        f"with open({str(target)!r}, 'w') as file: file.write('hello')": False,
    }
    found = passed(list(programs) * 2, Limits(cpu_seconds=1, wall_seconds=20.0, memory_mb=256))
    assert found == [*programs.values()] * 2
    assert not target.exists() or target.read_text() == ""


def test_code_is_worth_the_share_of_its_tests():
    facts = {"tests": ["assert f(2) == 4", "assert f(3) == 9", "assert f(0) == 1"]}
    found = PassesTests().scores([Prompt("", facts)] * 2, ["def f(x): return x * x", "nonsense("], None, None)
    np.testing.assert_allclose(found, [2 / 3, 0])
    prompts = [Prompt("def read_line(")] * 3
    body = "a):\n    b = a + 1\n    c = b * 2\n    return c\n"
    assert PythonFunctions().scores(prompts, [body, body, "a:"], None, None).tolist() == [1, 0, 0]


def test_a_program_is_judged_by_what_it_does_also_where_nobody_looked():
    task = Programs(examples=2)
    facts = {"tests": [(0, 0.0), (2, 4.0), (3, 9.0), (5, 25.0)]}  # the first two are also those of 2*x
    worth = {"x*x": 1, "x * (x+0)": 1, "2*x": 0.1, "x+x*1": 0.1, "4": 0, "x*": 0, "": 0, "x/0": 0, "y*y": 0, "x**2": 0, "exec(x)": 0}
    assert [task.score(Prompt("0>0 2>4:", facts), program) for program in worth] == [*worth.values()]
    for row in range(50):
        prompt = task.prompt(0, row)
        assert set(prompt.text + task.demonstration(prompt, 0, row)) <= set(task.alphabet)
        assert task.score(prompt, prompt.facts["program"]) == 1


def test_files_of_prompts(tmp_path):
    path = tmp_path / "sums.jsonl"
    path.write_text("\n".join(json.dumps({"question": f"{i} + 1", "answer": i + 1}) for i in range(64)))
    file = PromptFile(path=str(path), prompt_template="{question} = ", response_template="{answer}")
    seen = {split: {file.prompt(0, row, split).text for row in range(200)} for split in ("train", "validation")}
    assert seen["train"] | seen["validation"] == {f"{i} + 1 = " for i in range(64)} and not seen["train"] & seen["validation"]
    prompt = file.prompt(0, 3)
    assert file.scores([prompt], [f"it is {prompt.facts['answer']}"], None, None).tolist() == [1]
    assert file.demonstration(prompt, 0, 3) == str(prompt.facts["answer"])
    with pytest.raises(UserError, match="no field 'wrong'"):
        PromptFile(path=str(path), prompt_template="{wrong}").prompt(0, 0)


def test_a_conversation_learns_the_turns_of_the_assistant(tmp_path):
    turns = [("user", "ab"), ("assistant", "c"), ("tool", "d"), ("assistant", "ef")]
    path = tmp_path / "chat.jsonl"
    path.write_text("\n".join(json.dumps({"messages": [{"role": r, "content": f"{t}{i}"} for r, t in turns]}) for i in range(9)))
    file, tokenizer = PromptFile(path=str(path)), character_tokenizer("abcdef0123456789")
    prompt = file.prompt(0, 0)
    ids, learned = Transcriber(tokenizer).demonstration(prompt, file.demonstration(prompt, 0, 0))
    end = tokenizer.specials["document_end"]
    number = prompt.messages[0][1][-1]
    expected = [*tokenizer.encode(f"c{number}").tolist(), end, *tokenizer.encode(f"ef{number}").tolist(), end]
    assert [token for token, weight in zip(ids, learned, strict=True) if weight] == expected
    asked = Transcriber(tokenizer).prompt(prompt)
    assert ids[: len(asked)] == asked
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"messages": [{"role": "user", "content": "x"}]}\n')
    with pytest.raises(UserError, match="not a conversation"):
        PromptFile(path=str(bad)).prompt(0, 0)


def test_labels_follow_the_choice_rule():
    """With noise, the frequencies are Luce's; without it the best is chosen."""
    scores, rng = np.array([0.0, 1.0, 2.0]), np.random.default_rng(0)
    assert choose(scores, 0.0, rng) == 2
    counts = np.bincount([choose(scores, 0.5, rng) for _ in range(4000)], minlength=3) / 4000
    expected = np.exp(scores / 0.5) / np.exp(scores / 0.5).sum()
    np.testing.assert_allclose(counts, expected, atol=0.03)


def test_labels_are_written_whole_or_not_at_all(tmp_path):
    """A full disk, or any fault in between, leaves nothing behind, and nothing is written over what is there."""
    path = tmp_path / "pairs.jsonl"
    for error, raised in ((OSError(28, "No space left on device"), UserError), (KeyboardInterrupt(), KeyboardInterrupt)):
        with pytest.raises(raised), whole_or_nothing(path):
            raise error
        assert list(tmp_path.iterdir()) == []
    with whole_or_nothing(path) as file:
        file.write("whole")
    assert [one.name for one in tmp_path.iterdir()] == ["pairs.jsonl"] and path.read_text() == "whole"


@pytest.mark.parametrize(
    "arguments, says",
    [
        *((("--seed", "-1"), "--seed is -1"), (("--samples", "1"), "--samples is 1"), (("--prompt-tokens", "0"), "--prompt-tokens is 0")),
        *((("--noise", "nan"), "noise is nan"), (("--temperature", "inf"), "temperature is inf")),
        (("--output", "nowhere/else/pairs.jsonl"), "no such folder"),
        (("--output", str(ROOT / "README.md")), "exists"),
    ],
)
def test_mistakes_in_labelling_are_said_before_anything_is_loaded(arguments, says):
    output = () if "--output" in arguments else ("--output", "pairs.jsonl")
    with pytest.raises(UserError, match=says):
        label(["no-run", *output, *arguments])


def test_every_environment_and_reward_is_found_by_the_name_that_is_stored():
    """`omnia evaluate` reads config.json and imports no config: a fresh process finds whatever that names."""
    names = (
        "import importlib, pkgutil, train.rl\n"
        "for one in pkgutil.walk_packages(train.rl.__path__, 'train.rl.'): importlib.import_module(one.name)\n"
        "from train.rl.environments.environment import Environment\nfrom train.rl.rewards.rewards import Reward\n"
        "from train.runs.classes import name_of\n"
        "def below(kind): return {x for sub in kind.__subclasses__() for x in (name_of(sub), *below(sub))}\n"
        "print(*sorted(below(Environment) | below(Reward)))"
    )
    found = "import sys; from train.runs.classes import finder, name_of; find = finder('run', None, print); "
    found += "print(*(name_of(find(name)) for name in sys.argv[1:]))"

    def said(*command):
        return subprocess.run([sys.executable, "-c", *command], capture_output=True, text=True, check=True, cwd=ROOT).stdout.split()

    there = said(names)
    assert len(there) > 20 and said(found, *there) == there


def test_an_environment_that_answers_is_judged_by_itself():
    with pytest.raises(ValueError, match="replies"):
        Judged(SlotFilling(), Lexicon())


def test_scores_of_comparisons_are_numbers(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"prompt": "p", "responses": ["a", "b"], "best": 1, "scores": [0.5, 2]}\n')
    assert read_comparisons(str(path))[0]["scores"] == [0.5, 2]
    other = tmp_path / "b.jsonl"
    other.write_text('{"prompt": "p", "responses": ["a", "b"], "best": 1, "scores": [0.5]}\n')
    with pytest.raises(UserError, match="not one number for each"):
        read_comparisons(str(other))
