"""Check digits: what tells a number of a person from any other number."""

import functools
import re
import string
from collections.abc import Iterator
from itertools import accumulate

_ID_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
_CREDIT_WEIGHTS = (1, 3, 9, 27, 19, 26, 16, 17, 20, 29, 25, 13, 8, 24, 10, 30, 28)
_CREDIT_LETTERS = "0123456789ABCDEFGHJKLMNPQRTUWXY"


def digits_of(text: str) -> str:
    """The ASCII digits of a text."""
    return "".join(one for one in text if "0" <= one <= "9")


def luhn(number: str) -> bool:
    """Of payment cards (ISO/IEC 7812-1, annex B)."""
    digits = [int(one) for one in digits_of(number)]
    doubled = [2 * one - 9 * (one > 4) for one in digits[-2::-2]]
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0 and any(digits)


ISSUED = re.compile(
    "4[0-9]{12}(?:[0-9]{3}){0,2}"  # Visa
    "|(?:5[1-5][0-9]{2}|222[1-9]|22[3-9][0-9]|2[3-6][0-9]{2}|27[01][0-9]|2720)[0-9]{12}"  # Mastercard
    "|3[47][0-9]{13}|3(?:0[0-5]|[689][0-9])[0-9]{11}|35(?:2[89]|[3-8][0-9])[0-9]{12}"  # American Express, Diners Club, JCB
    "|(?:62|81)[0-9]{14,17}|(?:6011|64[4-9][0-9]|65[0-9]{2})[0-9]{12}|220[0-4][0-9]{12}"  # UnionPay, Discover, Mir
    "|(?:5018|5020|5038|5893|6304|6759|676[1-3])[0-9]{9,15}"  # Maestro
)
"""Numbers of cards whose issuers are known, by their first digits and their length (ISO/IEC 7812-1)."""
SHORTEST, LONGEST = 13, 19
"""Digits of a card."""
_DIGITS, _DOUBLED = b"0123456789", bytes((0, 2, 4, 6, 8, 1, 3, 5, 7, 9))
_GROUP = re.compile("[0-9]+")


def cards(run: str) -> Iterator[tuple[int, int]]:
    """Where the numbers of known cards stand in groups of digits with one space or hyphen between: each a group or some in a row.

    Luhn's sums of all parts are differences of two running sums, so each part takes one step, and from each group at most seven begin.
    """
    groups = [group.span() for group in _GROUP.finditer(run)]
    digits = run.encode().translate(None, b" -")
    plain, doubled = digits.translate(bytes.maketrans(_DIGITS, bytes(range(10)))), digits.translate(bytes.maketrans(_DIGITS, _DOUBLED))
    sums = []
    for odd in (0, 1):  # of parts whose last digit is at an odd place, and at an even one
        added = bytearray(plain)
        added[odd::2] = doubled[odd::2]
        sums.append(list(accumulate(added, initial=0)))
    ends = list(accumulate(end - start for start, end in groups))
    text, first = digits.decode(), 0
    for number, (begin, end) in enumerate(groups):
        start = ends[number] - (end - begin)
        while first < len(ends) and ends[first] < start + SHORTEST:
            first += 1
        last = first
        while text[start] in "234568" and last < len(ends) and ends[last] <= start + LONGEST:
            of = sums[ends[last] % 2]
            if (of[ends[last]] - of[start]) % 10 == 0 and ISSUED.fullmatch(text, start, ends[last]):
                yield begin, groups[last][1]
            last += 1


def chinese_id(number: str) -> bool:
    """Of resident identity cards: a date, and ISO 7064 mod 11-2 (GB 11643-1999); those of 15 digits have a date alone."""
    number = number.upper()
    if len(number) == 15:
        return number.isdigit() and _is_date(f"19{number[6:12]}")
    if not _is_date(number[6:14]):
        return False
    total = sum(weight * int(digit) for weight, digit in zip(_ID_WEIGHTS, number[:17], strict=True))
    return "10X98765432"[total % 11] == number[17]


def _is_date(text: str) -> bool:
    year, month, day = int(text[:4]), int(text[4:6]), int(text[6:8])
    return 1850 <= year <= 2100 and 1 <= month <= 12 and 1 <= day <= 31


SHORTEST_ACCOUNT, LONGEST_ACCOUNT = 15, 34
_HEAD = re.compile("[A-Za-z]{2}[0-9]{2}")
_NUMBERS = {ord(letter): str(int(letter, 36)) for letter in string.ascii_letters}


def accounts(run: str) -> Iterator[tuple[int, int]]:
    """Where bank accounts (IBAN, ISO 13616: remainder 1 modulo 97, the first four characters being the last) stand in groups of letters and
    digits with one space or hyphen between: from each group that may begin one the longest. Groups but the last have a multiple of four.

    What a group is modulo 97 is found once, so that it costs little to be a part of several.
    """
    groups = re.split("[ -]", run)
    ends = list(accumulate((len(group) + 1 for group in groups), initial=-1))[1:]
    numbers = [_modulo_97(group) if len(group) <= LONGEST_ACCOUNT else (0, 0) for group in groups]
    sizes = list(map(len, groups))
    for first, group in enumerate(groups):
        if not _HEAD.match(group):
            continue
        head, _ = _modulo_97(group[:4])
        remainder, _ = _modulo_97(group[4:LONGEST_ACCOUNT])
        length, last, found = sizes[first], first, 0
        while length <= LONGEST_ACCOUNT:
            if length >= SHORTEST_ACCOUNT and (remainder * 10**6 + head) % 97 == 1:
                found = ends[last]
            if sizes[last] % 4 or last + 1 == len(groups):
                break
            last += 1
            length += sizes[last]
            value, power = numbers[last]
            remainder = (remainder * power + value) % 97
        if found:
            yield ends[first] - sizes[first], found


@functools.lru_cache(maxsize=1 << 16)
def _modulo_97(group: str) -> tuple[int, int]:
    """Letters and digits as a number, letters being 10 to 35, modulo 97; and the power of ten that has as many zeros as it has digits."""
    digits = group.translate(_NUMBERS)
    return int(digits or "0") % 97, pow(10, len(digits), 97)


def credit_code(number: str) -> bool:
    """Of Chinese organisations (GB 32100-2015): modulo 31."""
    number = number.upper()
    if any(one not in _CREDIT_LETTERS for one in number):
        return False
    total = sum(weight * _CREDIT_LETTERS.index(one) for weight, one in zip(_CREDIT_WEIGHTS, number, strict=False))
    return _CREDIT_LETTERS[(31 - total % 31) % 31] == number[17]


def social_security(number: str) -> bool:
    """Of the United States: no area 000, 666 or 9xx, no group 00, no serial 0000."""
    area, group, serial = number[:3], number[-6:-4], number[-4:]
    return area not in ("000", "666") and area[0] != "9" and digits_of(group) != "00" and serial != "0000"


def ip_address(text: str) -> bool:
    """Whether this is an address of version 4 or 6."""
    import ipaddress

    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
