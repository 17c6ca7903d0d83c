"""Positions and codes of a weight: golden bytes by hand, and the way back."""

import numpy as np
import pytest

from micronet_cli.artifact.entries import Layer
from micronet_cli.artifact.format import Cursor, Damaged
from micronet_cli.artifact.stored_weights import (
    along_channels,
    code_digits,
    covered,
    integers_of,
    pack_positions,
    positions_bytes,
    unpack_positions,
)

NONZERO = np.array([[1, 0, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0]], bool)
# positions -> (covered elements, their bytes)
GOLDEN = {
    "all": (("all",), [[1, 1, 1, 1]] * 3, ""),
    "mask": (("mask",), [[1, 0, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0]], "8100"),
    # A grid of 2 x 2 blocks; those in the last row have one row.
    "blocks": (("blocks", 2, 2), [[1, 1, 1, 1], [1, 1, 1, 1], [0, 0, 0, 0]], "03"),
    # Patterns 1, 2, 4, 8 are the numbers 0 to 3, of two bits; an empty group is filled up from the left.
    "groups": (("groups", 1, 4), [[1, 0, 0, 0], [0, 0, 0, 1], [1, 0, 0, 0]], "0c"),
}


@pytest.mark.parametrize("case", GOLDEN)
def test_positions_have_these_bytes_and_come_back(case):
    positions, cover, packed = GOLDEN[case]
    found = covered(positions, NONZERO)
    assert found.astype(int).tolist() == cover
    content = pack_positions(positions, found)
    assert content.hex() == packed
    assert positions_bytes(positions, NONZERO.shape) == len(content)
    cursor = Cursor("masks", content)
    assert np.array_equal(unpack_positions(positions, NONZERO.shape, cursor, False), found)
    cursor.close()


@pytest.mark.parametrize("whole_bytes", [False, True])
def test_groups_of_a_convolution_run_along_its_input(whole_bytes):
    weight = np.zeros((2, 4, 3, 3), bool)
    weight[:, ::2] = True
    positions = ("groups", 2, 4)
    content = pack_positions(positions, weight, whole_bytes)
    assert len(content) == positions_bytes(positions, weight.shape, whole_bytes)
    assert np.array_equal(unpack_positions(positions, weight.shape, Cursor("masks", content), whole_bytes), weight)


@pytest.mark.parametrize(
    ("positions", "message"),
    [
        pytest.param(("blocks", 4, 4), "blocks are larger", id="larger block"),
        pytest.param(("blocks", 1), "blocks are larger", id="other dimensions"),
        pytest.param(("groups", 1, 8), "groups do not divide", id="indivisible"),
    ],
)
def test_positions_that_do_not_fit_the_weight_are_refused(positions, message):
    with pytest.raises(Damaged, match=message):
        unpack_positions(positions, (3, 4), Cursor("masks", bytes(99)), False)


def test_groups_of_a_vector_are_refused():
    with pytest.raises(Damaged, match="groups do not divide"):
        unpack_positions(("groups", 1, 2), (4,), Cursor("masks", bytes(9)), False)


def test_positions_from_a_short_stream_are_refused():
    with pytest.raises(Damaged, match="stream masks ends too early"):
        unpack_positions(("mask",), (3, 4), Cursor("masks", b"\0"), False)


CODES = {
    "without zeros": (Layer("a", bits=2, levels=4), [[-1, 1], [2, -1]], [1, 1], [2, 0, 1, 2]),
    "with zeros": (Layer("a", bits=2, levels=4, zeros=True), [[-1, 0], [2, 1]], [1, 1], [3, 0, 2, 1]),
    "zero code by channel": (Layer("a", bits=2, levels=4), [[-3, -1], [1, 3]], [3, 0], [0, 2, 0, 2]),
    "one zero code": (Layer("a", bits=1, levels=3), [[-1, 1], [1, -1]], [1], [1, 0, 0, 1]),
}


@pytest.mark.parametrize("case", CODES)
def test_integers_become_these_digits_and_come_back(case):
    layer, integers, zero_codes, digits = CODES[case]
    integers = np.array(integers)
    cover = np.ones_like(integers, bool)
    found = code_digits(integers, layer, cover)
    assert found.tolist() == digits
    assert np.array_equal(integers_of(found, layer, cover, np.array(zero_codes)), integers)


def test_elements_that_are_not_covered_are_zero():
    cover = np.array([[False, True], [False, False]])
    layer = Layer("a", bits=2, levels=4)
    assert integers_of(np.array([0]), layer, cover, np.array([0])).tolist() == [[0, 1], [0, 0]]
    nothing = integers_of(np.array([], int), layer, cover & False, np.array([0]))
    assert not nothing.any()


def test_numbers_along_channels_meet_a_convolution():
    assert along_channels(np.arange(3), 4).shape == (3, 1, 1, 1)
    assert along_channels(np.arange(1), 1).shape == (1,)
