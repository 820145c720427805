"""What expressions of + - * / come to, without Python's own eval: a model writes them."""

import ast
import operator
import warnings
from collections.abc import Mapping

_OPERATIONS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}
_LONGEST = 80
"""Characters of an expression: beyond, it is not read."""


def evaluate(expression: str, names: Mapping[str, float]) -> float | None:
    """What an expression of + - * /, parentheses, numbers and the given names comes to; None where it is no such thing."""
    if len(expression) > _LONGEST:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd ways to write numbers
            tree = ast.parse(expression.strip(), mode="eval")
        return _value(tree.body, names)
    except (SyntaxError, ValueError, ZeroDivisionError, OverflowError, RecursionError, MemoryError):
        return None


def _value(node: ast.AST, names: Mapping[str, float]) -> float:
    """ValueError for anything but arithmetic."""
    match node:
        case ast.BinOp(left, operation, right) if type(operation) in _OPERATIONS:
            return _OPERATIONS[type(operation)](_value(left, names), _value(right, names))
        case ast.UnaryOp(ast.USub(), operand):
            return -_value(operand, names)
        case ast.Constant(int() | float() as value) if not isinstance(value, bool):
            return float(value)
        case ast.Name(name) if name in names:
            return names[name]
    raise ValueError(ast.dump(node))
