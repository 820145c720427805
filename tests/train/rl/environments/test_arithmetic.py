"""Arithmetic that nobody trusts: what it comes to, and what is none."""

import operator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from train.rl.environments.arithmetic import evaluate

NAMES = ("N0", "N1", "N2")


def leaf(text):
    return text, lambda names: names[text] if text in names else float(text)


def joined(parts):
    (left, value), sign, (right, other) = parts
    operation = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}[sign]
    return f"({left}{sign}{right})", lambda names: operation(value(names), other(names))


numbers = st.lists(st.floats(0.5, 99), min_size=3, max_size=3)
leaves = st.sampled_from([*NAMES, "7", "0.5"]).map(leaf)
expressions = st.recursive(leaves, lambda inner: st.tuples(inner, st.sampled_from("+-*/"), inner).map(joined), max_leaves=6)


@given(expressions, numbers)
def test_expressions_come_to_what_their_parts_do(expression, values):
    text, value = expression
    given_names = dict(zip(NAMES, values, strict=True))
    try:
        expected = pytest.approx(value(given_names))
    except ZeroDivisionError:
        expected = None
    assert evaluate(text, given_names) == expected or len(text) > 80


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
    assert evaluate(text, dict.fromkeys(NAMES, 2.0)) is None or set(text) == {"-", "1"}
