"""What counts as Python worth the name, and what a cut-off generation is forgiven."""

import ast
import inspect

import pytest
from hypothesis import given
from hypothesis import strategies as st

from train.evaluation import snippets
from train.evaluation.snippets import parse_share

FUNCTION = "def total(values):\n    count = 0\n    for value in values:\n        count += value\n    return count\n"

GOOD = {
    "a function": FUNCTION,
    "cut in the next function": FUNCTION + "\n\ndef other(x, (",
    "garbage after a whole function": FUNCTION + "\nthis is not python at all\n",
    "imports first": "import os\nfrom sys import argv\n\n" + FUNCTION,
    "cut within a line": FUNCTION + "    retu",
    "a decorator": "@cache\n" + FUNCTION,
    "else at the margin": "if a:\n    b()\nelse:\n    c()\nd(",
    "calls at the margin": "a = f(1)\nb = g(a)\nprint(b)\n",
    "a string with lines at the margin": 'def f():\n    x = """\nat the margin\n"""\n    return x\n',
}
TRIVIAL = {
    "imports": "import os\nimport sys\nimport re\nfrom a import b\n",
    "constants": "A = 1\nB = [1, 2]\nC = {'a': -3}\nD: int\n",
    "docstring": '"""One.\n\nTwo.\nThree.\n"""\n',
    "two lines": "def f(x):\n    return x\n",
    "padded by comments": "def f(x):\n    # one\n    # two\n\n    return x\n",
    "padded by a docstring": 'def f(x):\n    """One.\n\n    Two.\n    """\n    return x\n',
    "empty bodies": "class A:\n    pass\n\n\nclass B:\n    x = 1\n\n    def f(self):\n        ...\n",
}
BROKEN = {
    "nothing": "",
    "blank": "\n\n",
    "comment": "# words\n# words\n# words\n",
    "one unfinished line": "def total(values): return sum(values",
    "broken in the first block": "def f(x):\n    return )\n\n\n" + FUNCTION,
    "a body that is missing": "def f(x):\n    if x:\n        ret",
    "bad indentation": "  a = 1\n b = 2\nc(a)\n",
    "null byte": "a = f(1)\x00\nb = f(a)\nc = f(b)\n",
    "half a character": "a = f('\ud800')\nb = f(a)\nc = f(b)\n",
    "absurd nesting": "a = " + "-" * 100_000 + "1\n",
}


@pytest.mark.parametrize(
    "kind, text", [(kind, text) for kind, texts in (("good", GOOD), ("trivial", TRIVIAL), ("broken", BROKEN)) for text in texts.values()]
)
def test_kinds(kind, text):
    expected = {"good": (1, 1, 0), "trivial": (0, 1, 1), "broken": (0, 0, 0)}[kind]
    found = parse_share([text])
    assert (found["share"], found["parsed"], found["trivial"]) == expected


def test_share_is_of_all_texts():
    found = parse_share([*GOOD.values(), *TRIVIAL.values(), *BROKEN.values()])
    total = len(GOOD) + len(TRIVIAL) + len(BROKEN)
    assert found == {"share": len(GOOD) / total, "parsed": len(GOOD) + len(TRIVIAL), "trivial": len(TRIVIAL), "total": total}
    assert parse_share([])["share"] == 0.0


@given(st.integers(0, 10_000), st.text(alphabet="ab(:=\n #'", max_size=40))
def test_what_follows_the_first_whole_block_changes_nothing(cut, tail):
    """Real code cut anywhere after its first function is accepted, whatever comes then."""
    source = inspect.getsource(snippets)
    end = source.index("\ndef is_trivial")
    cut = end + 1 + cut % (len(source) - end)
    assert parse_share([source[:cut]])["share"] == 1.0
    assert parse_share([source[: end + 1] + "x" + tail])["share"] == 1.0


@given(st.text(alphabet="def fx():\n =1'\"#@", max_size=60))
def test_accepted_texts_begin_with_python(text):
    if parse_share([text])["share"]:
        assert any(_parses(text[:end]) for end in range(1, len(text) + 1))


def _parses(text):
    try:
        return bool(ast.parse(text).body)
    except SyntaxError:
        return False
