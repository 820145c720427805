"""What of a text tells who somebody is, as far as patterns can know it, in Chinese and English.

Patterns read folded text (data/anonymize/folding.py). Borders are ASCII look-arounds: for `\\b` a Chinese character is a letter, and a
number between two of them would not be found. Repetitions are bounded, and a pattern begins only where no longer run could have begun, so
that time is linear in the length of a text.
"""

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from data.anonymize.checks import chinese_id, credit_code, digits_of, iban, ip_address, luhn, social_security

VERSION = 1
"""Of the rules: another may find more."""
DIGITS = tuple("0123456789")


class Span(NamedTuple):
    """Characters [start, end) of a text. kind: of information, such as PHONE."""

    start: int
    end: int
    kind: str


def any_text(text: str) -> bool:
    """Of expressions that say all that is to be said."""
    return True


class Pattern(NamedTuple):
    """An expression, and what the text it finds must fulfil. group: the part that is replaced. hints: a text with none of them cannot
    match, so that most texts are not searched."""

    kind: str
    expression: re.Pattern[str]
    holds: Callable[[str], bool] = any_text
    group: int = 0
    hints: tuple[str, ...] = ("",)


def _between(kind: str, expression: str, holds: Callable[[str], bool] = any_text, *hints: str) -> Pattern:
    """A pattern with no ASCII letter or digit beside it."""
    return Pattern(kind, re.compile(rf"(?<![0-9A-Za-z]){expression}(?![0-9A-Za-z])"), holds, 0, hints or DIGITS)


def _number(kind: str, expression: str, holds: Callable[[str], bool] = any_text) -> Pattern:
    """A pattern with no digit, and no group of digits behind a separator, beside it."""
    return Pattern(kind, re.compile(rf"(?<![0-9])(?<![0-9][-.]){expression}(?![0-9])(?!-[0-9])"), holds, 0, DIGITS)


def _card(text: str) -> bool:
    return 13 <= len(digits_of(text)) <= 19 and luhn(text)


TITLES = tuple("先生 女士 小姐 同学 老师 医生 大夫 教授 经理".split())
CALLED = tuple("姓名 名字 联系人 收件人 患者 客户".split())
STREETS = tuple("Street St Avenue Ave Road Rd Boulevard Blvd Lane Ln Drive Dr Court Ct Square Sq".split())
SURNAMES = (
    "欧阳|司马|上官|诸葛|东方|皇甫|尉迟|公孙|令狐|慕容|司徒|夏侯|端木|[王李张刘陈杨黄赵吴周徐孙马朱胡郭何高林罗郑梁谢宋唐许韩冯邓曹彭曾肖"
    "田董袁潘于蒋蔡余杜叶程苏魏吕丁任沈姚卢姜崔钟谭陆汪范金石廖贾夏韦付方白邹孟熊秦邱江尹薛闫段雷侯龙史陶黎贺顾毛郝龚邵万钱严覃武戴莫孔向汤]"
)
"""The commonest Chinese surnames, which nine in ten people have."""
NAMED = "(?:(?![的是和了在有这那个们不为与及就也都])[一-鿿])"
"""A character of a given name: none of those that sentences are joined by."""
PROVINCES = "京津沪渝冀豫云辽黑湘皖鲁新苏浙赣鄂桂甘晋蒙陕吉闽贵粤青藏川宁琼"

PATTERNS: tuple[Pattern, ...] = (
    Pattern(
        "EMAIL",
        re.compile(
            r"(?<![A-Za-z0-9._%+'-])[A-Za-z0-9_%+'-][A-Za-z0-9._%+'-]{0,127}@"
            r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,62})\.){1,8}[A-Za-z]{2,24}(?![A-Za-z0-9-])"
        ),
        hints=("@",),
    ),
    _between("CREDIT_CODE", r"[0-9A-HJ-NPQRTUWXYa-hj-npqrtuwxy]{2}[0-9]{6}[0-9A-HJ-NPQRTUWXYa-hj-npqrtuwxy]{10}", credit_code),
    _between("ID_CARD", r"[1-9][0-9]{5}(?:1[89]|2[01])[0-9]{9}[0-9Xx]", chinese_id),
    _between("ID_CARD", r"[1-9][0-9]{7}(?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01])[0-9]{3}", chinese_id),
    _between("IBAN", r"[A-Za-z]{2}[0-9]{2}(?:[ -]?[0-9A-Za-z]{4}){2,7}(?:[ -]?[0-9A-Za-z]{1,4})?", iban),
    _number("CARD", r"[0-9](?:[ -]?[0-9]){12,18}", _card),
    # A mobile number of China, with or without its country.
    _number("PHONE", r"(?:(?:\+|00)?86[ -]?)?1[3-9][0-9][ -]?[0-9]{4}[ -]?[0-9]{4}"),
    _number("PHONE", r"\(?0(?:10|2[0-57-9]|[3-9][0-9]{2})\)?[ -]?[2-8][0-9]{6,7}(?:-[0-9]{1,5})?"),
    _number("PHONE", r"400[ -]?[0-9]{3}[ -]?[0-9]{4}"),
    Pattern("PHONE", re.compile(r"(?<![0-9A-Za-z+])\+[1-9](?:[ .()-]{0,2}[0-9]){6,14}(?![0-9])"), hints=("+",)),
    _number("PHONE", r"(?:1[ .-])?(?:\([2-9][0-9]{2}\)[ ]?|[2-9][0-9]{2}[ .-])[2-9][0-9]{2}[ .-][0-9]{4}"),
    _number("SSN", r"[0-9]{3}([- ])[0-9]{2}\1[0-9]{4}", social_security),
    _between("IP", r"(?<![0-9]\.)(?:[0-9]{1,3}\.){3}[0-9]{1,3}(?!\.[0-9])", ip_address, "."),
    Pattern(
        "IP",
        re.compile(
            r"(?<![0-9A-Za-z])(?<![0-9A-Fa-f]:)(?<!::)(?:[0-9A-Fa-f]{1,4}:|:(?=:))"
            r"(?:[0-9A-Fa-f]{0,4}:){1,6}[0-9A-Fa-f]{0,4}(?![0-9A-Za-z:])"
        ),
        ip_address,
        hints=(":",),
    ),
    _between("MAC", r"(?<![0-9A-Fa-f][:-])[0-9A-Fa-f]{2}(?:[:-][0-9A-Fa-f]{2}){5}(?![:-][0-9A-Fa-f])", any_text, ":", "-"),
    _between("PASSPORT", r"(?:[EeGg][0-9]{8}|[Ee][A-HJ-NP-Za-hj-np-z][0-9]{7})"),
    Pattern("PLATE", re.compile(rf"[{PROVINCES}][A-HJ-NP-Za-hj-np-z][·•. ]?[A-HJ-NP-Za-hj-np-z0-9]{{5,6}}(?![0-9A-Za-z])")),
    _between("SECRET", r"(?:AKIA|ASIA)[0-9A-Z]{16}", any_text, "AKIA", "ASIA"),
    _between("SECRET", r"(?:sk|pk|rk)[-_](?:[A-Za-z]{2,8}[-_]){0,2}[A-Za-z0-9]{20,200}", any_text, "sk", "pk", "rk"),
    _between("SECRET", r"gh[pousr]_[A-Za-z0-9]{36,200}", any_text, "gh"),
    Pattern("URL_USER", re.compile(r"(?<=://)[^\s/:@]{1,100}:[^\s/@]{1,100}(?=@)"), hints=("://",)),
    Pattern(
        "NAME",
        re.compile(rf"(?:{'|'.join(CALLED)})(?:是|为|叫)?[：: ]{{0,2}}((?:{SURNAMES}){NAMED}{{1,2}})(?![一-鿿])"),
        group=1,
        hints=CALLED,
    ),
    Pattern("NAME", re.compile(rf"((?:{SURNAMES}){NAMED}{{0,2}}?)(?:{'|'.join(TITLES)})"), group=1, hints=TITLES),
    Pattern(
        "NAME",
        re.compile(r"(?<![A-Za-z])(?:Mr|Mrs|Ms|Miss|Dr|Prof)\.? ([A-Z][A-Za-z'-]{1,30}(?: [A-Z][A-Za-z'-]{1,30}){0,2})"),
        group=1,
        hints=("Mr", "Ms", "Miss", "Dr", "Prof"),
    ),
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
                if pattern.holds(found[pattern.group]):
                    yield Span(*found.span(pattern.group), pattern.kind)


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
