"""The packer takes the form of positions that is smallest, and only one that covers every non-zero."""

import numpy as np
import pytest

from micronet_cli.artifact.smallest_positions import smallest_positions
from micronet_cli.artifact.stored_weights import covered


def blocks():
    mask = np.zeros((16, 16), bool)
    mask[4:8, 8:12] = True
    return mask


def groups():
    rng = np.random.default_rng(0)
    chosen = rng.permuted(np.tile([True, True, False, False], (32 * 9 * 8, 1)), axis=1)
    return np.moveaxis(chosen.reshape(32, 3, 3, 32), -1, 1)


def filters():
    mask = np.zeros((32, 8, 3, 3), bool)
    mask[::4] = True
    return mask


MASKS = {
    "dense": (np.ones((8, 8), bool), ("all",)),
    "one element": (np.ones((1, 1), bool), ("all",)),
    "scattered": (np.random.default_rng(0).random((64, 64)) < 0.3, ("mask",)),
    "vector": (np.arange(64) % 2 == 0, ("mask",)),
    "blocks": (blocks(), ("blocks", 4, 4)),
    "filters": (filters(), ("blocks", 1, 8, 3, 3)),
    "2:4": (groups(), ("groups", 2, 4)),
}


@pytest.mark.parametrize("case", MASKS)
def test_structure_is_found(case):
    mask, positions = MASKS[case]
    found = smallest_positions(mask, 4, 4)
    assert found == positions
    assert not (mask & ~covered(found, mask)).any()


def test_groups_that_only_the_first_channels_keep_are_not_taken():
    mask = np.zeros((128, 64), bool)
    mask[:64, ::4] = True
    mask[64:] = True  # beyond the sample
    found = smallest_positions(mask, 4, 4)
    assert found[0] != "groups"
    assert not (mask & ~covered(found, mask)).any()


def test_codes_that_cannot_be_zero_have_to_pay_for_a_mask():
    mask = np.ones((8, 8), bool)
    mask[0, 0] = False
    assert smallest_positions(mask, 4, 3.9) == ("all",)
    assert smallest_positions(mask, 32, 8) == ("mask",)
