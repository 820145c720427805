"""Problems whose numbers have names, and expressions that nobody trusts."""

import json
import operator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.errors import UserError
from train.rl.word_problems import WordProblems, evaluate, named

PROBLEM = {"original_text": "Ann had 22 pens , lost 14 and found 22.0 more .", "equation": "X=((22.0-14.0)+22)", "ans": 30.0}


def test_numbers_are_named_by_their_order_and_equal_ones_share_a_name():
    text, expression, numbers = named(PROBLEM["original_text"], PROBLEM["equation"])
    assert text == "Ann had N0 pens , lost N1 and found N0 more ."
    assert (expression, numbers) == ("(N0-N1)+N0", [22.0, 14.0])
    assert named("6 boxes", "x=(6*12)")[1] == "N0*12"  # what the text does not say stays
    assert named("1 and 2 and 3", "X=((1+2)*(3-1))")[1] == "(N0+N1)*(N2-N0)"  # these do not enclose the whole


def leaf(text):
    return text, lambda names: names[text] if text in names else float(text)


def joined(parts):
    (left, value), sign, (right, other) = parts
    operation = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}[sign]
    return f"({left}{sign}{right})", lambda names: operation(value(names), other(names))


numbers = st.lists(st.floats(0.5, 99), min_size=3, max_size=3)
leaves = st.sampled_from(["N0", "N1", "N2", "7", "0.5"]).map(leaf)
expressions = st.recursive(leaves, lambda inner: st.tuples(inner, st.sampled_from("+-*/"), inner).map(joined), max_leaves=6)


@given(expressions, numbers)
def test_expressions_come_to_what_their_parts_do(expression, values):
    text, value = expression
    try:
        expected = pytest.approx(value({f"N{place}": number for place, number in enumerate(values)}))
    except ZeroDivisionError:
        expected = None
    assert evaluate(text, values) == expected or len(text) > 80


@pytest.mark.parametrize(
    "text",
    [
        "",
        "N3",
        "N0 N1",
        "N0+",
        "abs(N0)",
        "N0**9999",
        "N0 if 1 else 2",
        "__import__('os')",
        "N0/0",
        "'a'*9",
        "True",
        "(" * 60,
        "-" * 70 + "1" * 5,
    ]
    + ["1" * 81, "\0"],
)
def test_what_is_no_arithmetic_has_no_value(text):
    assert evaluate(text, [1.0, 2.0, 3.0]) is None or set(text) == {"-", "1"}


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
    with pytest.raises(UserError, match="record 1 is no word problem"):
        WordProblems(str(path)).prompt(0, 0)
    with pytest.raises(UserError, match="no path"):
        WordProblems().prompt(0, 0)
    with pytest.raises(ValueError, match="share"):
        WordProblems(share=0.0)
