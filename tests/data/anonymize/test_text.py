"""No number, name or address survives, in Chinese and English, with or without spaces, however it is written; and little else changes."""

import random
import re
import string
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.anonymize.checks import accounts, chinese_id, credit_code, luhn
from data.anonymize.folding import fold
from data.anonymize.patterns import KINDS, Span, merged
from data.anonymize.surrogates import SURROGATE, Key
from data.anonymize.text import Anonymizer, shape_of

KEY = Key(b"a secret of 32 bytes in all ....")
BEFORE = ["", "我的号码是", "请联系", "（", "电话：", "call me at ", "ID=", "卡号", "see ", "寄到", "'", "「", "邮箱", "是"]
BEFORE += ["1.", "12.", "1. ", "2、", "2024 ", "No. 802 ", "ab12 "]
AFTER = ["", "谢谢", "，明天见", "。", ") now", " please", "吗？", "!", "」", "的", "号", " and more"]
AFTER += [" 12/26", " 12/26 cvv 123", " 123", " from here", " is mine", "-802", "/2", " 2024 1 1", ".", ", 123"]
BEHIND_NAMES = ["电话13800138000", "手机", "和李四", "与其", "及家人", "入院", "住北京", "先生", "女士", "、王五"]


def digits(rng: random.Random, count: int) -> str:
    return "".join(rng.choices(string.digits, k=count))


def completed(rng: random.Random, body: str, alphabet: str, holds) -> str:
    """The body with the check character that makes it right."""
    return next(body + one for one in alphabet if holds(body + one))


def card(rng):
    """Of a known issuer, in one piece or in groups as on the card."""
    begin, length = rng.choice(
        [("4", 16), ("51", 16), ("2221", 16), ("37", 15), ("36", 14), ("3530", 16), ("62", 16), ("62", 19), ("6011", 16)]
    )
    found = completed(rng, begin + digits(rng, length - 1 - len(begin)), string.digits, luhn)
    groups = [found[:4], found[4:10], found[10:]] if length < 16 else re.findall(".{1,4}", found)
    return rng.choice([found, " ".join(groups), "-".join(groups)])


def id_card(rng):
    date = f"{rng.randint(1920, 2015)}{rng.randint(1, 12):02}{rng.randint(1, 28):02}"
    return completed(rng, f"{rng.randint(11, 65)}{digits(rng, 4)}{date}{digits(rng, 3)}", "0123456789X", chinese_id)


def account(rng):
    body = "".join(rng.choices(string.ascii_uppercase + string.digits, k=18))
    country = "".join(rng.choices(string.ascii_uppercase, k=2))
    found = next(f"{country}{check:02}{body}" for check in range(2, 99) if list(accounts(f"{country}{check:02}{body}")) == [(0, 22)])
    return rng.choice([found, " ".join(found[place : place + 4] for place in range(0, 22, 4))])


def organisation(rng):
    letters = "0123456789ABCDEFGHJKLMNPQRTUWXY"
    body = rng.choice("159") + rng.choice("123") + digits(rng, 6) + "".join(rng.choices(letters, k=9))
    return completed(rng, body, letters, credit_code)


def email(rng):
    name = "".join(rng.choices(string.ascii_lowercase + string.digits + "._-", k=rng.randint(1, 12))).strip(".")
    return f"{name or 'a'}@{rng.choice(['example.com', 'mail.example.cn', 'x-y.org', 'a.b.co.uk'])}"


def phone(rng):
    mobile, rest = rng.choice(["130", "138", "147", "151", "166", "176", "188", "199"]), digits(rng, 8)
    local = f"{rng.randint(2, 8)}{digits(rng, 7)}"
    return rng.choice(
        [
            mobile + rest,
            f"{mobile}-{rest[:4]}-{rest[4:]}",
            f"+86 {mobile} {rest[:4]} {rest[4:]}",
            f"86-{mobile}{rest}",
            f"010-{local}",
            f"(021) {local}",
            f"010 {local[:4]} {local[4:]}",
            f"0755-{local[:4]} {local[4:]}",
            f"400-{digits(rng, 3)}-{digits(rng, 4)}",
            f"({rng.randint(2, 9)}{digits(rng, 2)}) {rng.randint(2, 9)}{digits(rng, 2)}-{digits(rng, 4)}",
            f"+44 20 {digits(rng, 4)} {digits(rng, 4)}",
            f"+1-{rng.randint(2, 9)}{digits(rng, 2)}-{rng.randint(2, 9)}{digits(rng, 2)}-{digits(rng, 4)}",
        ]
    )


def name(rng):
    """With the words that tell that it is one, between bars."""
    chinese = rng.choice(["张", "陈", "赵", "欧阳", "司马"]) + "".join(rng.choices("丰英伟芳娜静敏强磊洋涛超军志国", k=rng.randint(1, 2)))
    first = rng.choice(["José", "Jose\u0301", "Zoë", "Łukasz", "Jane", "Анна"])
    return rng.choice(
        [
            f"{rng.choice(['姓名', '姓名：', '联系人', '收件人是', '名字叫', '姓名: '])}|{chinese}|",
            f"{rng.choice(['患者', '客户'])}|{chinese}|{rng.choice(['入院', '的', '和家人', '电话', '，'])}",
            f"{rng.choice(['Mr ', 'Dr. ', 'Prof. '])}|{first} {rng.choice(['García', 'O’Neil', 'Smith', 'Nuñez'])}|",
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
    "NAME": name,
}
"""Of every kind, a value; or words before it, the value, and words behind it, with bars between."""


def full_width(text: str) -> str:
    return "".join(chr(ord(one) + 0xFEE0) if "!" <= one <= "~" else one for one in text)


def survives(kind: str, value: str, found: str) -> bool:
    """Whether a value, or of a name any word or Chinese character, is still there."""
    left = unicodedata.normalize("NFKC", SURROGATE.sub("|", found))
    if kind == "NAME":
        return any(part in left for part in (unicodedata.normalize("NFKC", value).split() if " " in value else value))
    plain, wanted = (re.sub(r"[^0-9A-Za-z@]", "", text) for text in (left, value))
    return bool(wanted) and wanted in plain


def contexts(count: int, seed: int = 0):
    """(kind, value, text)."""
    rng = random.Random(seed)
    for number in range(count):
        kind = list(MAKERS)[number % len(MAKERS)]
        made = MAKERS[kind](rng)
        opened, value, closed = made.split("|") if kind == "NAME" else ("", made, "")
        before, after = rng.choice(BEFORE), rng.choice(AFTER + BEHIND_NAMES * (kind == "NAME"))
        if kind in ("ADDRESS", "PLATE", "SECRET"):  # which letters and characters around would be part of
            before, after = rng.choice(["", "，", ": ", "（"]), rng.choice(["", "，", "。", "; "])
        before = "" if kind == "IP" and before.endswith(".") else before  # which would be a number more
        after = "" if kind == "SSN" and after.startswith("-") else after  # likewise, and no check digit says that it is none
        shown = full_width(value) if rng.random() < 0.15 and kind != "ADDRESS" else value
        yield kind, value, before + opened + shown + closed + after


@pytest.mark.parametrize("count", [1300, pytest.param(20_000, marks=pytest.mark.slow)])
def test_nothing_survives_in_generated_contexts(count):
    anonymizer, kinds = Anonymizer(KEY), []
    for kind, value, text in contexts(count):
        found = anonymizer(text)
        assert not survives(kind, value, found), (kind, value, text, found)
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
        ("Dr. José García", "é"),
        ("Prof. राम कुमार wrote", "म"),
        ("姓名张三电话13800138000", "张三"),
        ("联系人王小明手机13800138000", "小明"),
        ("患者李四入院", "李四"),
        ("姓名：张三丰和李四", "李四"),
        ("姓名：张三丰和李四", "张三丰"),
        ("姓名李和平的", "和平"),
        ("4111 1111 1111 1111 12/26 cvv 123", "1111"),
        ("4111111111111111 123", "1111"),
        ("2024 4111 1111 1111 1111", "1111"),
        ("2.4111111111111111", "1111"),
        ("ES9121000418450200051332 from here", "0418"),
        ("BE68539007547034 is mine", "5390"),
        ("see ab12 ES91 2100 0418 4502 0005 1332 here", "0418"),
        ("1.13800138000", "138"),
        ("13800138000-802", "138"),
        ("13800138000-13900139000", "139"),
        ("13800138000-13900139000", "138"),
        ("010 6234 5678", "6234"),
        ("0755-8888 8888", "8888"),
        ("1.0755-88888888", "8888"),
        ("G12345678-aa:bb:cc:dd:ee:ff-802", "aa:bb"),
        ("g@x-y.org-a.b@mail.example", "@"),
        ("postgres://bob:s3cret@localhost/x", "s3cret"),
        ("138​0013​8000", "138"),
        ("١٣٨٠٠١٣٨٠٠٠", "١٣٨"),
    ],
)
def test_names_links_and_disguises(text, left):
    assert left not in Anonymizer(KEY)(text)


@pytest.mark.parametrize(
    "text, expected",
    [
        ("Mr. Smith wrote to Dr. Zoë Ng 谢谢", "Mr. | wrote to Dr. | 谢谢"),
        ("Mr. Smith谢谢", "Mr. |谢谢"),
        ("姓名李永和电话不详", "姓名|电话不详"),
        ("姓名李和平号", "姓名|号"),
        ("姓名：张三、李四、欧阳娜娜和王五的电话", "姓名：|、|、|和|的电话"),
        ("联系人王先生", "联系人|先生"),
        ("患者王小明和家人", "患者|和家人"),
        ("周一良先生和许多医生", "|先生和许多医生"),
    ],
)
def test_names_end_where_something_tells_it_or_after_three_characters(text, expected):
    assert SURROGATE.sub("|", Anonymizer(KEY)(text)) == expected


@pytest.mark.parametrize(
    "text",
    [
        "In 2024 we sold 1,234,567 pieces at 12:30 on 2024-05-06, version 1.2.3, pi 3.14159265358979.",
        "订单号 20240506123456789，共 3 件，合计 199.00 元，第 100 章，高 1.85 米。",
        "4111111111111112 has no right check digit, nor has 110105194912310021.",
        "[PHONE:ABCDEFGH] stays, and so does the road to 42.",
        "def f(a: int) -> int: return a[1:2] @ b",
        "王国的先生们",
        "3.14159265358979, 3.14159265359, 2.718281828459045 and 1.7320508075688772; 0.13800138000, -1.13800138000",
        "versions 1.2.3, 10.15.7 and 1.2.13800138000 of 2023-2024",
        "ISBN 9787302123453, 978-986-1234-56-7, 978-7-302-12345-3, 0-306-40615-2",
        "0.110105491231002 and 12.110105491231002",
        "患者高血压入院，患者于昨日入院，患者曾住院，患者向医生和护士说，客户金额的总和，客户高兴极了，联系人方式",
    ],
)
def test_what_is_nothing_of_the_kind_stays(text):
    assert Anonymizer(KEY)(text) == text


def test_two_values_beside_each_other_hide_neither():
    """Nor does one that was replaced bring more to light."""
    rng, anonymizer = random.Random(0), Anonymizer(KEY)
    for _ in range(400):
        first, second = ((kind, MAKERS[kind](rng)) for kind in rng.choices([kind for kind in MAKERS if kind != "NAME"], k=2))
        text = first[1] + rng.choice([" ", ", ", "/", "、", " - ", "；"]) + second[1]
        found = anonymizer(text)
        assert not any(survives(*one, found) for one in (first, second)), (text, found)
        assert anonymizer(found) == found


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


def test_accounts_are_those_of_the_whole_number_modulo_97():
    """By ISO 13616, letter by letter: the first four behind the rest, letters as 10 to 35; of several ends the last, from every group."""
    rng, hits = random.Random(0), 0
    for _ in range(2000):
        groups = []
        for _ in range(rng.randint(1, 9)):
            head = "".join(rng.choices(string.ascii_letters, k=2)) + digits(rng, 2) if rng.random() < 0.5 else ""
            groups.append(head + "".join(rng.choices("01Az", k=rng.choice([4, 4, 8, 12, rng.randint(1, 40)]))))
        run, expected = rng.choice(" -").join(groups), []
        places = [match.span() for match in re.finditer("[0-9A-Za-z]+", run)]
        for first, (start, _) in enumerate(places):
            found = [
                (start, end)
                for last, (_, end) in enumerate(places[first:], first)
                if re.match("[A-Za-z]{2}[0-9]{2}", run[start:])
                and all(len(group) % 4 == 0 for group in groups[first:last])
                and 15 <= len(plain := re.sub("[ -]", "", run[start:end])) <= 34
                and int("".join(str(int(one, 36)) for one in plain[4:] + plain[:4])) % 97 == 1
            ]
            expected += found[-1:]
        assert list(accounts(run)) == expected, run
        hits += len(expected)
    assert hits > 20


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


@pytest.mark.parametrize("piece", ["1", "a", "1-", "ab:", "a@", "+1 ", "Mr. A ", "北京市路1", "1 A ", "sk-", "张", "4 ", "ab12 ", "姓名张"])
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


def test_a_mask_says_of_which_kind_it_was():
    """What stands between is left as it is, and so are the ends of lines; many in a line are joined once."""
    some = Anonymizer(KEY)
    text = "mail jane@clinic.example or (212) 867-5309\n\nnothing here\n"
    masked = some.masked(text)
    kinds = [[span.kind for span in some.spans(line)] for line in text.split("\n")]
    assert len(kinds[0]) == 2 and masked == f"mail [{kinds[0][0]}] or [{kinds[0][1]}]\n\nnothing here\n"
    assert some.masked(masked) == masked and some.masked(text * 3) == masked * 3
