"""How much of generated Python parses: a score of a code model that needs no reference and runs nothing."""

import ast
import warnings

MINIMUM_LINES = 3


def parse_share(texts: list[str]) -> dict[str, float]:
    """Share of generated texts that begin with Python worth the name.

    A generation may stop anywhere, so a text is judged by its beginning: by the shortest one that ends where a line starts at the margin,
    parses, and is not trivial. A last line without its newline is left out; nothing else is forgiven, what comes before least of all.
    Trivial are fewer than three lines of code, or nothing but imports, constants, docstrings and pass.

    Returns total, parsed (texts with a beginning that parses), trivial (those of them with nothing better than trivial ones), and
    share = (parsed - trivial) / total.
    """
    parsed = trivial = 0
    for text in texts:
        found = [is_trivial(tree, beginning) for beginning in _beginnings(text) if (tree := _parse(beginning)) is not None]
        parsed += bool(found)
        trivial += bool(found) and all(found)
    return {"share": (parsed - trivial) / max(len(texts), 1), "parsed": parsed, "trivial": trivial, "total": len(texts)}


def is_trivial(tree: ast.Module, source: str) -> bool:
    """Whether a parsed text is too little to show anything."""
    statements = [node for node in ast.walk(tree) if isinstance(node, ast.stmt)]
    if all(_says_nothing(statement) for statement in statements if not hasattr(statement, "body")):
        return True
    strings = [range(node.lineno, (node.end_lineno or node.lineno) + 1) for node in statements if _is_bare_constant(node)]
    code = {number for number, line in enumerate(source.splitlines(), 1) if line.strip() and not line.lstrip().startswith("#")}
    return len(code.difference(*strings)) < MINIMUM_LINES


def _beginnings(text: str):
    """The text up to each line at the margin, shortest first, and up to the end of its last whole line."""
    lines = text.splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines.pop()
    for end, line in enumerate(lines):
        if end and not line[0].isspace():
            yield "".join(lines[:end])
    yield "".join(lines)


def _parse(source: str) -> ast.Module | None:
    """The syntax tree, None when there is none or it is empty."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of odd escapes in strings
        try:
            tree = ast.parse(source)
        except (SyntaxError, ValueError, RecursionError, MemoryError):  # ValueError: half a character; the last two: absurd nesting
            return None
    return tree if tree.body else None


def _says_nothing(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.Import | ast.ImportFrom | ast.Pass | ast.Global | ast.Nonlocal):
        return True
    if isinstance(statement, ast.Assign | ast.AnnAssign):
        return statement.value is None or _is_literal(statement.value)
    return _is_bare_constant(statement)


def _is_bare_constant(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def _is_literal(value: ast.expr) -> bool:
    try:
        ast.literal_eval(value)
    except (ValueError, TypeError, RecursionError, MemoryError):
        return False
    return True
