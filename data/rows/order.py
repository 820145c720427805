"""The order of rows: any row of any epoch in O(1), from integers alone.

All arithmetic is on uint64, modulo 2^64, so that it is the same on every machine.
"""

import numpy as np

_ROUNDS = 6
_ALL_BITS = (1 << 64) - 1
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def _mix(x):
    """The finaliser of splitmix64 (Steele, Lea, Flood 2014): every input bit reaches every output bit."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def fold(seed, *values):
    """A uint64 hash of a seed and integers, each a number or an array; arrays broadcast."""
    key = _uint64(seed)
    with np.errstate(over="ignore"):  # NumPy warns of the wanted overflow, of scalars only
        for value in values:
            key = _mix(key * _GOLDEN + _uint64(value) + np.uint64(0x632BE59BD9B4E019))
    return key


def permute(index, size: int, key):
    """Maps indices in [0, size) to [0, size), one to one for each key.

    A Feistel network over the smallest even or odd number of bits that holds `size`, walked along its cycle until
    the value is below `size` (Black and Rogaway 2002): fewer than two steps on average. `key` is one uint64, or one for
    every index. Returns int64.
    """
    value = np.array(index, np.int64).astype(np.uint64)
    keys = np.broadcast_to(_uint64(key), value.shape).reshape(-1)
    round_keys = np.stack([fold(keys, number) for number in range(_ROUNDS)])
    bits = max(6, (int(size) - 1).bit_length())  # fewer bits make a biased network
    outside = np.arange(value.size)
    flat = value.reshape(-1)
    while outside.size:
        flat[outside] = _feistel(flat[outside], bits, round_keys[:, outside])
        outside = outside[flat[outside] >= size]
    return value.astype(np.int64)


def shuffled(row, size: int, seed: int):
    """Row r of an endless stream -> (epoch, index within the epoch): a new permutation of [0, size) each epoch."""
    epoch, index = np.divmod(np.asarray(row, np.int64), size)
    return epoch, permute(index, size, fold(seed, epoch))


def by_owner(owners) -> list[np.ndarray]:
    """For each owner, in the order of their first rows, the numbers of its rows. owners: of each row, anything that NumPy can sort."""
    _, first, owner = np.unique(owners, return_index=True, return_inverse=True)
    rows = np.split(np.argsort(owner, kind="stable"), np.cumsum(np.bincount(owner))[:-1])
    return [rows[number] for number in np.argsort(first)]


def few_of(numbers: np.ndarray, most: int, key) -> np.ndarray:
    """At most so many of the numbers, a fair choice by a key where there are more."""
    return numbers if len(numbers) <= most else numbers[np.sort(np.argsort(fold(key, numbers), kind="stable")[:most])]


def row_numbers(coins: np.ndarray, rows: int = 1) -> np.ndarray:
    """int64 [U * rows], below 2^31: numbers by which the randomness of rows is drawn, `rows` for each of the coins uint64 [U]."""
    return (fold(coins[:, None], np.arange(rows)) >> np.uint64(33)).astype(np.int64).reshape(-1)


def _feistel(value, bits, round_keys):
    """A bijection of [0, 2^bits): halves of the bits in turn are xored with a keyed hash of the other half."""
    low_bits = bits // 2
    for key in round_keys:
        high_bits = bits - low_bits
        low, high = value & np.uint64((1 << low_bits) - 1), value >> np.uint64(low_bits)
        high = high ^ (_mix(low * _GOLDEN + key) & np.uint64((1 << high_bits) - 1))
        value, low_bits = (low << np.uint64(high_bits)) | high, high_bits
    return value


def _uint64(value):
    if isinstance(value, int):
        return np.uint64(value & _ALL_BITS)
    value = np.asarray(value)
    return value if value.dtype == np.uint64 else value.astype(np.int64).astype(np.uint64)
