"""Which media of a corpus are there more than once: the same bytes, or pictures that look alike."""

import numpy as np

FINGERPRINT = np.dtype([("content", "<u8"), ("picture", "<u8"), ("colour", "<u4"), ("image", "u1"), ("split", "u1"), ("sample", "<u4")])
"""Of one medium: digest of its bytes; for an image its perceptual hash and mean colour; its split and sample in the shard."""
NEAR_BITS = 3  # of 64 that may differ
_NEAR_COLOUR = 16  # of 255, in each channel
_BANDS, _BAND_BITS = 4, 16  # two hashes that differ in 3 bits have one of 4 bands in common
_NEIGHBOURS = 8  # compared within a band, in the order of the hashes


def find_duplicates(fingerprints: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two int64 [n, 2] of (place, an earlier place) in an array of FINGERPRINT: of equal bytes, and of images that look alike beside these.

    Of those that look alike a few may be missed where very many do.
    """
    _, first, inverse = np.unique(fingerprints["content"], return_index=True, return_inverse=True)
    original = first[inverse]  # np.unique gives the earliest
    later = np.flatnonzero(original != np.arange(len(fingerprints)))
    exact = np.stack([later, original[later]], axis=1)
    images = np.flatnonzero((fingerprints["image"] == 1) & (original == np.arange(len(fingerprints))))
    near = _near(fingerprints["picture"][images], fingerprints["colour"][images])
    return exact, images[near].reshape(-1, 2)


def _near(picture, colour):
    """(place, the earliest place that looks alike), of each place that has one."""
    earliest = np.arange(len(picture))
    for band in range(_BANDS):
        key = picture >> np.uint64(band * _BAND_BITS) & np.uint64((1 << _BAND_BITS) - 1)
        order = np.lexsort((picture, key))
        for step in range(1, min(_NEIGHBOURS, len(order) - 1) + 1):
            one, other = order[:-step], order[step:]
            alike = (key[one] == key[other]) & (np.bitwise_count(picture[one] ^ picture[other]) <= NEAR_BITS)
            for shift in (0, 8, 16):
                values = (colour >> np.uint32(shift) & np.uint32(255)).astype(np.int32)
                alike &= np.abs(values[one] - values[other]) <= _NEAR_COLOUR
            pair = np.sort(np.stack([one[alike], other[alike]], axis=1), axis=1)
            np.minimum.at(earliest, pair[:, 1], pair[:, 0])
    later = np.flatnonzero(earliest != np.arange(len(picture)))
    return np.stack([later, earliest[later]], axis=1)
