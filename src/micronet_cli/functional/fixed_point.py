"""Real numbers in few bytes: integers with a common exponent, and the range of an activation."""

import numpy as np

ZERO_POINT_BITS = 16  # of an activation's range
ZERO_CODES = 1 << ZERO_POINT_BITS
_MAGNITUDE_BITS = 31  # of an int32


def to_fixed(values: np.ndarray) -> tuple[np.ndarray, int]:
    """Numbers as int32 times 2^exponent, the exponent such that the largest one fits: error below 2^-31 of it.

    >>> to_fixed(np.array([1.0, -0.75, 0.0]))
    (array([1073741824, -805306368,          0], dtype=int32), -30)
    """
    largest = _largest(values)
    _, bits_before_point = np.frexp(largest)
    exponent = int(bits_before_point) - _MAGNITUDE_BITS
    scaled = _in_units(values, exponent)
    if _largest(scaled) >= 2**_MAGNITUDE_BITS:
        # The largest was rounded up, to one more than fits.
        exponent += 1
        scaled = _in_units(values, exponent)
    return scaled.astype(np.int32), exponent


def _largest(values: np.ndarray) -> float:
    """The largest magnitude, 0 of no values."""
    magnitudes = np.abs(values)
    return magnitudes.max(initial=0.0)


def _in_units(values: np.ndarray, exponent: int) -> np.ndarray:
    """Whole multiples of 2^exponent, as floats."""
    exact = np.ldexp(values, -exponent)
    return np.rint(exact)


def pack_range(scale: float, zero_point: int) -> bytes:
    """Eight bytes: the scale to 37 significant bits, and the code of 0, which is ``-zero_point``, in the lowest 16.

    >>> unpack_range(pack_range(2.5, -3))
    (2.5, -3)
    """
    double = np.float64(scale)
    scale_bits = int(double.view(np.uint64))
    half_a_unit = ZERO_CODES // 2
    rounded = scale_bits + half_a_unit
    high = rounded // ZERO_CODES * ZERO_CODES
    zero_code = -zero_point
    word = high | zero_code
    return word.to_bytes(8, "little")


def unpack_range(content: bytes) -> tuple[float, int]:
    """Scale and zero point that ``pack_range`` packed."""
    word = int.from_bytes(content, "little")
    high, zero_code = divmod(word, ZERO_CODES)
    scale_bits = np.uint64(high * ZERO_CODES)
    scale = scale_bits.view(np.float64)
    return float(scale), -zero_code
