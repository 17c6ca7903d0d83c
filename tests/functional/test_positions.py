"""Bit masks have the bytes worked out by hand; blocks and groups come back."""

import numpy as np
import pytest

from micronet_cli.functional.positions import (
    expand_blocks,
    filled_up,
    group_rows,
    pack_mask,
    patterns,
    ungroup_rows,
    unpack_mask,
    used_blocks,
)


def test_mask_has_these_bytes():
    mask = np.array([[1, 0, 0, 1, 0], [0, 0, 0, 0, 1]], bool)
    assert pack_mask(mask).hex() == "0902"
    assert np.array_equal(unpack_mask(bytes.fromhex("0902"), (2, 5)), mask)
    for wrong in ("09", "090200", "0906"):
        with pytest.raises(ValueError, match="elements"):
            unpack_mask(bytes.fromhex(wrong), (2, 5))


def test_blocks_with_smaller_edges():
    mask = np.zeros((3, 5), bool)
    mask[2, 4] = True
    used = used_blocks(mask, (2, 2))
    assert used.tolist() == [[False, False, False], [False, False, True]]
    assert np.argwhere(expand_blocks(used, (2, 2), mask.shape)).tolist() == [[2, 4]]
    mask[0, 1] = True
    assert expand_blocks(used_blocks(mask, (2, 2)), (2, 2), mask.shape)[:2, :2].all()


def test_two_of_four_has_six_patterns():
    rows, number = patterns(2, 4)
    assert len(rows) == 6
    assert number[0b0011] == 0
    assert number[0b1100] == 5
    assert (number >= 0).sum() == 6


def test_groups_lie_along_the_input_dimension():
    weight = np.arange(2 * 4 * 3).reshape(2, 4, 3)
    rows = group_rows(weight, 4)
    assert rows[0].tolist() == [0, 3, 6, 9]
    assert np.array_equal(ungroup_rows(rows, weight.shape), weight)
    assert filled_up(np.array([[True, False, False, True]]), 2).tolist() == [[True, False, False, True]]


def test_filled_up_leaves_full_rows_and_fills_empty_ones_from_the_left():
    rows = np.array([[True, True, False], [False, False, False]])
    assert filled_up(rows, 2).tolist() == [[True, True, False], [True, True, False]]


def test_mask_of_no_elements_is_no_bytes():
    assert pack_mask(np.zeros((0, 3), bool)) == b""
    assert unpack_mask(b"", (0, 3)).shape == (0, 3)
