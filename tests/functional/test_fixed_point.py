"""Fixed point is within half a unit, and a range has the bytes worked out by hand."""

import numpy as np
import pytest

from micronet_cli.functional.fixed_point import pack_range, to_fixed, unpack_range


@pytest.mark.parametrize("values", [[0.0, 0.0], [1e-30, -3e-31], [2.0**-31, 1.0], [-1e20, 3.0], [np.nextafter(1, 0)]])
def test_fixed_point_is_within_half_a_unit(values):
    stored, exponent = to_fixed(np.array(values))
    assert stored.dtype == np.int32
    assert np.abs(np.ldexp(stored.astype(float), exponent) - values).max() <= np.ldexp(0.5, exponent)
    assert np.ldexp(1.0, exponent) <= 2.0**-30 * 1.001 * np.abs(values).max() or not any(values)


RANGES = {
    # 2.5 is 0x4004000000000000 as a double; the code of zero, 3, fills the lowest 16 bits.
    "exact scale": (2.5, -3, "0300000000000440", 2.5),
    "zero is the first code": (1.0, 0, "000000000000f03f", 1.0),
    "largest code of zero": (1.0, -65535, "ffff00000000f03f", 1.0),
    "half of the last bit kept rounds up": (1 + 2.0**-37, 0, "000001000000f03f", 1 + 2.0**-36),
    "less than half rounds down": (1 + 2.0**-38, 0, "000000000000f03f", 1.0),
}


@pytest.mark.parametrize(("scale", "zero_point", "packed", "read"), RANGES.values(), ids=RANGES.keys())
def test_range_has_these_bytes(scale, zero_point, packed, read):
    assert pack_range(scale, zero_point).hex() == packed
    assert unpack_range(bytes.fromhex(packed)) == (read, zero_point)
