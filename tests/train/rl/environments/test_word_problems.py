"""Problems whose numbers have names."""

import json

import pytest

from data.errors import UserError
from train.rl.environments.word_problems import WordProblems, named

PROBLEM = {"original_text": "Ann had 22 pens , lost 14 and found 22.0 more .", "equation": "X=((22.0-14.0)+22)", "ans": 30.0}


def test_numbers_are_named_by_their_order_and_equal_ones_share_a_name():
    text, expression, numbers = named(PROBLEM["original_text"], PROBLEM["equation"])
    assert text == "Ann had N0 pens , lost N1 and found N0 more ."
    assert (expression, numbers) == ("(N0-N1)+N0", [22.0, 14.0])
    assert named("6 boxes", "x=(6*12)")[1] == "N0*12"  # what the text does not say stays
    assert named("1 and 2 and 3", "X=((1+2)*(3-1))")[1] == "(N0+N1)*(N2-N0)"  # these do not enclose the whole


def test_problems_of_validation_are_not_trained_on_and_a_share_is_a_part(tmp_path):
    problems = [dict(PROBLEM, original_text=f"Case {'x' * number} : 22 , 14 .") for number in range(40)]
    wrong = dict(PROBLEM, original_text="Wrong : 22 , 14 .", ans=7.0)
    train, test = tmp_path / "train.jsonl", tmp_path / "test.json"
    train.write_text("\n".join(map(json.dumps, [*problems[:30], wrong])))
    test.write_text(json.dumps(problems[20:]))

    def texts(source, split, count):
        return {source.prompt(3, row, split).text for row in range(count)}

    whole, some = (WordProblems(str(train), str(test), share) for share in (1.0, 0.4))
    assert len(texts(whole, "train", 30)) == 30  # each once in a pass, the wrong one never
    assert texts(whole, "validation", 10) == {f"Case {'x' * number} : N0 , N1 .\n" for number in range(30, 40)}
    few = texts(some, "train", 200)
    assert few < texts(whole, "train", 30) and len(few) > 3
    alone = WordProblems(str(train))
    assert not texts(alone, "train", 200) & texts(alone, "validation", 200)
    prompt = whole.prompt(0, 0)
    assert whole.score(prompt, whole.demonstration(prompt, 0, 0)) == 1.0 and whole.score(prompt, "N0+N1") == 0.0


def test_files_of_something_else_are_refused(tmp_path):
    path = tmp_path / "other.jsonl"
    path.write_text('{"question": "?"}\n')
    with pytest.raises(UserError, match="line 1: is not a word problem"):
        WordProblems(str(path)).prompt(0, 0)
    with pytest.raises(UserError, match="no path"):
        WordProblems().prompt(0, 0)
    with pytest.raises(ValueError, match="share"):
        WordProblems(share=0.0)
