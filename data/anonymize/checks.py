"""Check digits: what tells a number of a person from any other number."""

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


def iban(number: str) -> bool:
    """Of bank accounts: ISO 13616, remainder 1 modulo 97."""
    plain = "".join(number.split()).replace("-", "").upper()
    if not 15 <= len(plain) <= 34:
        return False
    return int("".join(str(int(one, 36)) for one in plain[4:] + plain[:4])) % 97 == 1


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
