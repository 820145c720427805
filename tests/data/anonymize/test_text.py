"""No number, name or address survives, in Chinese and English, with or without spaces, however it is written; and little else changes."""

import random
import re
import string
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.anonymize.checks import chinese_id, credit_code, iban, luhn
from data.anonymize.folding import fold
from data.anonymize.patterns import KINDS, Span, merged
from data.anonymize.surrogates import SURROGATE, Key
from data.anonymize.text import Anonymizer, shape_of

KEY = Key(b"a secret of 32 bytes in all ....")
BEFORE = ["", "我的号码是", "请联系", "（", "电话：", "call me at ", "ID=", "卡号", "see ", "寄到", "'", "「", "邮箱", "是"]
AFTER = ["", "谢谢", "，明天见", "。", ") now", " please", "吗？", "!", "」", "的", "号", " and more"]


def digits(rng: random.Random, count: int) -> str:
    return "".join(rng.choices(string.digits, k=count))


def completed(rng: random.Random, body: str, alphabet: str, holds) -> str:
    """The body with the check character that makes it right."""
    return next(body + one for one in alphabet if holds(body + one))


def card(rng):
    found = completed(rng, rng.choice("3456") + digits(rng, 14), string.digits, luhn)
    return rng.choice([found, " ".join(re.findall("....", found)), "-".join(re.findall("....", found))])


def id_card(rng):
    date = f"{rng.randint(1920, 2015)}{rng.randint(1, 12):02}{rng.randint(1, 28):02}"
    return completed(rng, f"{rng.randint(11, 65)}{digits(rng, 4)}{date}{digits(rng, 3)}", "0123456789X", chinese_id)


def account(rng):
    body = "".join(rng.choices(string.ascii_uppercase + string.digits, k=18))
    country = "".join(rng.choices(string.ascii_uppercase, k=2))
    found = next(f"{country}{check:02}{body}" for check in range(2, 99) if iban(f"{country}{check:02}{body}"))
    return rng.choice([found, " ".join(found[place : place + 4] for place in range(0, 22, 4))])


def organisation(rng):
    letters = "0123456789ABCDEFGHJKLMNPQRTUWXY"
    body = rng.choice("159") + rng.choice("123") + digits(rng, 6) + "".join(rng.choices(letters, k=9))
    return completed(rng, body, letters, credit_code)


def email(rng):
    name = "".join(rng.choices(string.ascii_lowercase + string.digits + "._-", k=rng.randint(1, 12))).strip(".")
    return f"{name or 'a'}@{rng.choice(['example.com', 'mail.example.cn', 'x-y.org', 'a.b.co.uk'])}"


def phone(rng):
    one = rng.choice("3456789")
    rest, local = digits(rng, 9), f"{rng.randint(2, 8)}{digits(rng, 7)}"
    return rng.choice(
        [
            f"1{one}{rest}",
            f"1{one}{rest[0]}-{rest[1:5]}-{rest[5:]}",
            f"+86 1{one}{rest[0]} {rest[1:5]} {rest[5:]}",
            f"86-1{one}{rest}",
            f"010-{local}",
            f"(021) {local}",
            f"({rng.randint(2, 9)}{digits(rng, 2)}) {rng.randint(2, 9)}{digits(rng, 2)}-{digits(rng, 4)}",
            f"+44 20 {digits(rng, 4)} {digits(rng, 4)}",
            f"+1-{rng.randint(2, 9)}{digits(rng, 2)}-{rng.randint(2, 9)}{digits(rng, 2)}-{digits(rng, 4)}",
        ]
    )


MAKERS = {
    "CARD": card,
    "ID_CARD": id_card,
    "IBAN": account,
    "CREDIT_CODE": organisation,
    "EMAIL": email,
    "PHONE": phone,
    "SSN": lambda rng: f"{rng.randint(100, 665)}-{rng.randint(10, 99)}-{rng.randint(1000, 9999)}",
    "IP": lambda rng: rng.choice(
        [".".join(str(rng.randint(0, 255)) for _ in range(4)), f"fe80::{rng.randint(1, 9999):x}:{rng.randint(1, 99):x}"]
    ),
    "MAC": lambda rng: ":".join(f"{rng.randint(0, 255):02x}" for _ in range(6)),
    "PASSPORT": lambda rng: f"{rng.choice('EG')}{digits(rng, 8)}",
    "PLATE": lambda rng: f"{rng.choice('京沪粤苏')}{rng.choice('ABCDE')}{rng.choice(['', '·'])}{rng.choice('ABCDEFGH')}{digits(rng, 4)}",
    "SECRET": lambda rng: rng.choice(["AKIA" + "".join(rng.choices(string.ascii_uppercase, k=16)), "sk-" + digits(rng, 24)]),
    "ADDRESS": lambda rng: rng.choice([f"北京市海淀区中关村大街{rng.randint(1, 999)}号", f"{rng.randint(1, 999)} Old Mill Road"]),
}
"""Of every kind with a form of its own; names, which need words around them, have a test of theirs."""


def full_width(text: str) -> str:
    return "".join(chr(ord(one) + 0xFEE0) if "!" <= one <= "~" else one for one in text)


def survives(value: str, found: str) -> bool:
    """Whether a value, or most of its digits in a row, is still there."""
    plain = re.sub(r"[^0-9A-Za-z@]", "", unicodedata.normalize("NFKC", SURROGATE.sub("|", found)))
    wanted = re.sub(r"[^0-9A-Za-z@]", "", value)
    return bool(wanted) and wanted in plain


def contexts(count: int, seed: int = 0):
    """(kind, value, text)."""
    rng = random.Random(seed)
    for number in range(count):
        kind = list(MAKERS)[number % len(MAKERS)]
        value = MAKERS[kind](rng)
        before, after = rng.choice(BEFORE), rng.choice(AFTER)
        if kind in ("ADDRESS", "PLATE", "SECRET"):  # which letters and characters around would be part of
            before, after = rng.choice(["", "，", ": ", "（"]), rng.choice(["", "，", "。", "; "])
        yield kind, value, before + (full_width(value) if rng.random() < 0.15 and kind != "ADDRESS" else value) + after


@pytest.mark.parametrize("count", [1300, pytest.param(20_000, marks=pytest.mark.slow)])
def test_nothing_survives_in_generated_contexts(count):
    anonymizer, kinds = Anonymizer(KEY), []
    for kind, value, text in contexts(count):
        found = anonymizer(text)
        assert not survives(value, found), (kind, value, text, found)
        kinds.append((kind, f"[{kind}:" in found))
        assert anonymizer(found) == found
    for kind in MAKERS:
        right = [named for one, named in kinds if one == kind]
        assert sum(right) / len(right) > 0.9, (kind, "is taken for something else")
    assert set(MAKERS) <= set(KINDS)


@pytest.mark.parametrize(
    "text, left",
    [
        ("姓名：张三", "张三"),
        ("收件人欧阳修", "欧阳修"),
        ("王先生来了，李小红女士也来了", "李小红"),
        ("Ask Dr. Jane O'Neil or Mr Smith.", "Neil"),
        ("postgres://bob:s3cret@localhost/x", "s3cret"),
        ("138​0013​8000", "138"),
        ("١٣٨٠٠١٣٨٠٠٠", "١٣٨"),
    ],
)
def test_names_links_and_disguises(text, left):
    assert left not in Anonymizer(KEY)(text)


@pytest.mark.parametrize(
    "text",
    [
        "In 2024 we sold 1,234,567 pieces at 12:30 on 2024-05-06, version 1.2.3, pi 3.14159265358979.",
        "订单号 20240506123456789，共 3 件，合计 199.00 元，第 100 章，高 1.85 米。",
        "4111111111111112 has no right check digit, nor has 110105194912310021.",
        "[PHONE:ABCDEFGH] stays, and so does the road to 42.",
        "def f(a: int) -> int: return a[1:2] @ b",
        "王国的先生们",
    ],
)
def test_what_is_nothing_of_the_kind_stays(text):
    assert Anonymizer(KEY)(text) == text


@given(st.text(alphabet="0123456789-+() .@:[]aAxX张三路号，１３８\n\r​", max_size=120), st.data())
def test_pieces_give_what_the_whole_gives_and_twice_is_once(text, data):
    """A stream cut anywhere; and a text that was anonymised has nothing more to find."""
    whole = Anonymizer(KEY)(text)
    stream, rest, parts = Anonymizer(KEY).stream(), text, []
    while rest:
        size = data.draw(st.integers(1, len(rest)))
        parts.append(stream.feed(rest[:size]))
        rest = rest[size:]
    assert "".join(parts) + stream.finish() == whole
    assert Anonymizer(KEY)(whole) == whole


@given(st.text(max_size=60))
def test_folded_spans_point_at_what_they_were_made_of(text):
    folded = fold(text)
    for place, character in enumerate(folded.text):
        start, end = folded.span(place, place + 1)
        assert 0 <= start < end <= len(text)
        assert character in fold(text[start:end]).text


def test_surrogates_are_of_the_key_and_of_what_is_meant():
    first, other = Key(b"1" * 32), Key(b"2" * 32)
    assert first.surrogate("PHONE", "138-0013-8000") == first.surrogate("PHONE", "１３８００１３８０００")
    assert first.surrogate("PHONE", "13800138000") != first.surrogate("PHONE", "13800138001")
    assert first.surrogate("PHONE", "13800138000") != other.surrogate("PHONE", "13800138000")
    assert first.fingerprint != other.fingerprint and "1111" not in first.fingerprint
    assert SURROGATE.fullmatch(first.surrogate("ID_CARD", "x")) and shape_of("a1-张") == "a0-a"
    assert len({first.surrogate("EMAIL", f"{number}@example.com") for number in range(5000)}) == 5000


def test_spans_that_overlap_become_one():
    assert merged([Span(5, 9, "A"), Span(0, 6, "B"), Span(9, 12, "C")]) == [Span(0, 9, "B"), Span(9, 12, "C")]
    assert merged([]) == []


def test_nothing_opens_a_socket(monkeypatch):
    import socket

    def refuse(*arguments, **options):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    assert "zhang" not in Anonymizer(KEY)("邮箱zhang@example.cn")


@pytest.mark.parametrize("piece", ["1", "a", "1-", "ab:", "a@", "+1 ", "Mr. A ", "北京市路1", "1 A ", "sk-", "张"])
def test_time_is_linear_in_what_cannot_match(piece):
    """Counted in steps of the expressions' work as time of one size against another: far from quadratic."""
    import time

    def seconds(count: int) -> float:
        text, best = piece * (count // len(piece)), float("inf")
        for _ in range(3):
            began = time.process_time()
            Anonymizer(KEY)(text)
            best = min(best, time.process_time() - began)
        return best

    assert seconds(80_000) < 4 * 8 * seconds(10_000) + 0.05, "quadratic would be 64 times"


def fickle(lines):
    """Words of capitals are names where no name stands before them: of three in a row, one is found at first, then the others."""
    found = []
    for line in lines:
        words = list(re.finditer(r"\S+", line))
        named = [bool(re.fullmatch("[A-Z]{2}", word[0])) for word in words]
        found.append(
            [Span(*word.span(), "NAME") for place, word in enumerate(words) if named[place] and not any(named[max(place - 1, 0) : place])]
        )
    return found


def test_a_finder_is_asked_until_it_finds_no_more():
    """An anonymised text stays as it is, and places are those of the original, though names are found one after the other."""
    text = "aa AA BB CC mail bb@cc.de DD\nno\nＸＸ 13800138000 YY"
    changes = []
    found = Anonymizer(KEY, fickle)(text, changes)
    assert SURROGATE.sub("|", found) == "aa | | | mail | |\nno\n| | |"
    assert Anonymizer(KEY, fickle)(found) == found and found.startswith("aa [NAME:")
    lines = text.split("\n")
    assert {lines[one.line - 1][one.column - 1 :].split(" ")[0] for one in changes} == set(text.split()) - {"aa", "mail", "no"}
    stream = Anonymizer(KEY, fickle).stream()
    assert "".join(stream.feed(piece) for piece in text) + stream.finish() == found


def test_what_a_finder_takes_beside_surrogates_is_replaced_and_they_stay():
    one, other = KEY.surrogate("PHONE", "1"), KEY.surrogate("EMAIL", "2")
    line = f"x Ann {one} Lee, {other} y"

    def whole(lines):
        return [[Span(2, line.index(" y"), "NAME")] if "Ann" in line else [] for line in lines]

    found = Anonymizer(KEY, whole)(line)
    assert found.count("[NAME:") == 2 and one in found and other in found and found.startswith("x [NAME:") and found.endswith(" y")


def test_many_short_texts_are_read_in_few_calls():
    texts = [f"n{number} AA x\nBB" for number in range(50)]
    calls = []

    def counted(lines):
        calls.append(len(lines))
        return fickle(lines)

    ahead = Anonymizer(KEY, counted)
    ahead.look_ahead(texts)
    assert len(calls) == 2 and [ahead(text) for text in texts] == [Anonymizer(KEY, fickle)(text) for text in texts]
    assert len(calls) == 2 and ahead.counts == {"NAME": 100}
