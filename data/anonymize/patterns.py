"""What of a text tells who somebody is, as far as patterns can know it, in Chinese and English.

Patterns read folded text (data/anonymize/folding.py). Borders are ASCII look-arounds: for `\\b` a Chinese character is a letter, and a
number between two of them would not be found. Repetitions are bounded or give nothing back, a pattern begins only where no longer run could
have begun, and of what it finds so many parts are tried at most, so that time is linear in the length of a text.

Where a look-around of a number asks for digits, a surrogate is the same to it, since it may stand for some: else an anonymised text would
have more to find.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from data.anonymize import names
from data.anonymize.checks import LONGEST, SHORTEST, accounts, cards, chinese_id, credit_code, digits_of, ip_address, luhn, social_security
from data.anonymize.surrogates import LENGTH, SURROGATE

VERSION = 2
"""Of the rules: another may find more."""
DIGITS = tuple("0123456789")


class Span(NamedTuple):
    """Characters [start, end) of a text. kind: of information, such as PHONE."""

    start: int
    end: int
    kind: str


Spans = Callable[[re.Match[str]], Iterable[tuple[int, int]]]
"""What of a match is replaced: starts and ends in the text."""


def _whole(found: re.Match[str]) -> Iterable[tuple[int, int]]:
    return (found.span(),)


def _if(holds: Callable[[str], bool]) -> Spans:
    """All of a match, if its text fulfils something."""
    return lambda found: (found.span(),) if holds(found[0]) else ()


def _parts(spans: Callable[[str], Iterable[tuple[int, int]]]) -> Spans:
    """Parts of a match."""
    return lambda found: [(found.start() + start, found.start() + end) for start, end in spans(found[0])]


def _group(found: re.Match[str]) -> Iterable[tuple[int, int]]:
    return (found.span(1),)


class Pattern(NamedTuple):
    """An expression, and what of its matches is replaced. hints: a text with none of them cannot match, so that most texts are not
    searched."""

    kind: str
    expression: re.Pattern[str]
    spans: Spans = _whole
    hints: tuple[str, ...] = ("",)


def _between(kind: str, expression: str, spans: Spans = _whole, *hints: str) -> Pattern:
    """A pattern with no ASCII letter or digit beside it."""
    return Pattern(kind, re.compile(rf"(?<![0-9A-Za-z]){expression}(?![0-9A-Za-z])"), spans, hints or DIGITS)


_DONE = rf":[A-Z]{{{LENGTH}}}\]"
"""How a surrogate ends."""
FREE = rf"(?<![0-9])(?<![0-9]\.)(?<!{_DONE}\.)"
"""Before a number: no digit, and no point of a decimal number."""
_ENTRY = "(?<![0-9A-Za-z.,+-])[1-9]"
LISTED = rf"(?<![0-9])(?:(?<={_ENTRY}\.)|(?<={_ENTRY}[0-9]\.))"
"""Before a number: what numbers an entry of a list, such as `1.` or `12.`. It may as well begin a decimal number."""
ALONE = rf"{FREE}(?<![0-9]-)(?<!{_DONE}-)"
"""Before a number: nor a group of digits and a hyphen."""
ENDS = rf"(?![0-9])(?!-(?:[0-9]|{SURROGATE.pattern}))"
"""Behind a number: no digit, nor a hyphen and a group of digits."""


def _number(kind: str, expression: str, spans: Spans = _whole, before: str = FREE, behind: str = "(?![0-9])") -> Pattern:
    return Pattern(kind, re.compile(f"(?:{before})(?:{expression}){behind}"), spans, DIGITS)


def _card(text: str) -> bool:
    digits = digits_of(text)
    book = len(digits) == 13 and digits[:3] in ("978", "979")
    return SHORTEST <= len(digits) <= LONGEST and luhn(text) and not book


AREA = "0(?:10|2[0-57-9]|[3-9][0-9]{2})"
LOCAL = "[2-8][0-9]{2,3}[ -]?[0-9]{4}(?:-[0-9]{1,5}(?![0-9]))?"
AMERICAN = r"(?:1[ .-])?(?:\([2-9][0-9]{2}\)[ ]?|[2-9][0-9]{2}[ .-])[2-9][0-9]{2}[ .-][0-9]{4}"
BOOK = rf"(?!97[89]-[0-9]{{3}}-[0-9]{{4}}-(?:[0-9]|{SURROGATE.pattern}))"
"""Not the first groups of an ISBN."""
STREETS = tuple("Street St Avenue Ave Road Rd Boulevard Blvd Lane Ln Drive Dr Court Ct Square Sq".split())
PROVINCES = "京津沪渝冀豫云辽黑湘皖鲁新苏浙赣鄂桂甘晋蒙陕吉闽贵粤青藏川宁琼"

PATTERNS: tuple[Pattern, ...] = (
    Pattern(
        "EMAIL",
        re.compile(
            r"(?<![A-Za-z0-9._%+'])[A-Za-z0-9_%+'-][A-Za-z0-9._%+'-]{0,127}@"
            r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,62})\.){1,8}[A-Za-z]{2,24}(?![A-Za-z0-9])"
        ),
        hints=("@",),
    ),
    _between("CREDIT_CODE", r"[0-9A-HJ-NPQRTUWXYa-hj-npqrtuwxy]{2}[0-9]{6}[0-9A-HJ-NPQRTUWXYa-hj-npqrtuwxy]{10}", _if(credit_code)),
    _between("ID_CARD", r"[1-9][0-9]{5}(?:1[89]|2[01])[0-9]{9}[0-9Xx]", _if(chinese_id)),
    _between("ID_CARD", rf"{FREE}[1-9][0-9]{{7}}(?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01])[0-9]{{3}}", _if(chinese_id)),
    # Words before and behind an account look like more of it.
    Pattern(
        "IBAN",
        re.compile(r"(?<![0-9A-Za-z])[A-Za-z]{2}[0-9]{2}[0-9A-Za-z]*+(?:[ -][0-9A-Za-z]++)*+"),
        _parts(accounts),
        DIGITS,
    ),
    # Of any issuer where no other number is beside it, or in one piece; of those that are known as a part of what stands there.
    _number(
        "CARD",
        r"[0-9](?:[ -]?[0-9]){12,18}",
        _if(_card),
        rf"{FREE}(?<![0-9][ -])(?<!{_DONE}[ -])",
        rf"(?![0-9])(?![ -](?:[0-9]|{SURROGATE.pattern}))",
    ),
    _number("CARD", "[0-9]{13,19}", _if(_card), ALONE, ENDS),
    _number("CARD", "(?=[0-9](?:[ -]?[0-9]){12})[0-9]++(?:[ -][0-9]++)*+", _parts(cards), f"{FREE}|{LISTED}", ""),
    # A mobile number of China, with or without its country; behind `1.` and in one piece, of a network that there is.
    _number("PHONE", r"(?:(?:\+|00)?86[ -]?)?1[3-9][0-9][ -]?[0-9]{4}[ -]?[0-9]{4}"),
    _number("PHONE", "1(?:[38][0-9]|4[5-9]|5[0-35-9]|6[2567]|7[0-8]|9[0-35-9])[0-9]{8}", before=LISTED),
    _number("PHONE", "1[3-9][0-9][ -][0-9]{4}[ -]?[0-9]{4}", before=LISTED),
    _number("PHONE", rf"\(?{AREA}\)?[ -]?{LOCAL}"),
    _number("PHONE", rf"\(?{AREA}(?:\)[ -]?|[ -]){LOCAL}", before=LISTED),
    _number("PHONE", r"400[ -]?[0-9]{3}[ -]?[0-9]{4}"),
    _number("PHONE", r"400[ -][0-9]{3}[ -]?[0-9]{4}", before=LISTED),
    Pattern("PHONE", re.compile(r"(?<![0-9A-Za-z+])\+[1-9](?:[ .()-]{0,2}[0-9]){6,14}(?![0-9])"), hints=("+",)),
    _number("PHONE", f"{BOOK}{AMERICAN}", before=rf"{ALONE}|{LISTED}|{FREE}(?=\()"),
    _number("SSN", r"[0-9]{3}([- ])[0-9]{2}\1[0-9]{4}", _if(social_security), f"{ALONE}|{LISTED}", ENDS),
    _between("IP", rf"(?<![0-9]\.)(?:[0-9]{{1,3}}\.){{3}}[0-9]{{1,3}}(?!\.(?:[0-9]|{SURROGATE.pattern}))", _if(ip_address), "."),
    Pattern(
        "IP",
        re.compile(
            r"(?<![0-9A-Za-z])(?<![0-9A-Fa-f]:)(?<!::)(?:[0-9A-Fa-f]{1,4}:|:(?=:))"
            r"(?:[0-9A-Fa-f]{0,4}:){1,6}[0-9A-Fa-f]{0,4}(?![0-9A-Za-z:])"
        ),
        _if(ip_address),
        hints=(":",),
    ),
    _between("MAC", "(?<![0-9A-Fa-f]:)[0-9A-Fa-f]{2}(?::[0-9A-Fa-f]{2}){5}(?!:[0-9A-Fa-f])", _whole, ":"),
    _between("MAC", "(?<![0-9A-Fa-f]-)[0-9A-Fa-f]{2}(?:-[0-9A-Fa-f]{2}){5}(?!-[0-9A-Fa-f])", _whole, "-"),
    _between("PASSPORT", r"(?:[EeGg][0-9]{8}|[Ee][A-HJ-NP-Za-hj-np-z][0-9]{7})"),
    Pattern("PLATE", re.compile(rf"[{PROVINCES}][A-HJ-NP-Za-hj-np-z][·•. ]?[A-HJ-NP-Za-hj-np-z0-9]{{5,6}}(?![0-9A-Za-z])")),
    _between("SECRET", r"(?:AKIA|ASIA)[0-9A-Z]{16}", _whole, "AKIA", "ASIA"),
    _between("SECRET", r"(?:sk|pk|rk)[-_](?:[A-Za-z]{2,8}[-_]){0,2}[A-Za-z0-9]{20,200}", _whole, "sk", "pk", "rk"),
    _between("SECRET", r"gh[pousr]_[A-Za-z0-9]{36,200}", _whole, "gh"),
    Pattern("URL_USER", re.compile(r"(?<=://)[^\s/:@]{1,100}:[^\s/@]{1,100}(?=@)"), hints=("://",)),
    Pattern("NAME", names.CALLED, names.called, names.FORMS + names.ROLES),
    Pattern("NAME", names.ADDRESSED, _group, names.TITLES),
    Pattern("NAME", names.TITLED, names.titled, ("Mr", "Ms", "Miss", "Dr", "Prof")),
    Pattern(
        "ADDRESS",
        re.compile(
            r"(?:[一-鿿]{2,8}(?:省|自治区))?(?:[一-鿿]{2,8}[市州盟])?(?:[一-鿿]{1,8}[区县旗])?"
            r"[一-鿿0-9]{1,12}(?:路|街|道|巷|弄|胡同)[0-9]{1,5}(?:号|弄)(?:[0-9A-Za-z一-鿿]{0,10}?(?:室|楼|栋|单元|层))?"
        ),
        hints=("号", "弄"),
    ),
    Pattern(
        "ADDRESS",
        re.compile(
            r"(?<![0-9A-Za-z])[0-9]{1,5}[A-Za-z]? (?:[A-Z][A-Za-z'.]{0,20} ){1,4}"
            rf"(?:{'|'.join(STREETS)})(?![A-Za-z])\.?"
        ),
        hints=STREETS,
    ),
)
KINDS = tuple(dict.fromkeys(pattern.kind for pattern in PATTERNS))


def find(text: str) -> Iterator[Span]:
    """All that the patterns find in a folded text; spans may overlap."""
    for pattern in PATTERNS:
        if any(hint in text for hint in pattern.hints):
            for found in pattern.expression.finditer(text):
                for start, end in pattern.spans(found):
                    yield Span(start, end, pattern.kind)


def merged(spans: list[Span]) -> list[Span]:
    """Spans without overlaps, in order: those that overlap become one, of the kind of the longest, the first of equal ones."""
    found: list[Span] = []
    longest = 0
    for span in sorted(spans, key=lambda one: (one.start, -one.end)):
        if found and span.start < found[-1].end:
            before, length = found[-1], span.end - span.start
            kind = span.kind if length > longest else before.kind
            found[-1] = Span(before.start, max(before.end, span.end), kind)
            longest = max(longest, length)
        else:
            found.append(span)
            longest = span.end - span.start
    return found
