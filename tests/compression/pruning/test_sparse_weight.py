"""A layer's weight at a sparsity: exact counts over groups, either way of choosing, kernels in N:M."""

import pytest
import torch

from micronet_cli.compression.pruning import sparse_weight as module
from micronet_cli.compression.pruning.sparse_weight import sparse_weight
from micronet_cli.errors import UserError
from micronet_cli.functional.granularity import NM, Element
from micronet_cli.functional.masks import shrink_mask
from micronet_cli.functional.second_order import damped, obs_update


def layer(groups, *shape):
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(shape, generator=generator)
    inputs = weight[0].numel()
    seen = torch.randn(groups, 300, inputs, generator=generator) @ torch.randn(inputs, inputs, generator=generator)
    hessians = seen.transpose(1, 2) @ seen / 300
    return weight, torch.ones_like(weight, dtype=torch.bool), damped(hessians, 0.01)


def error(weight, found, hessians):
    difference = (weight - found).flatten(1).unflatten(0, (len(hessians), -1)).double()
    return float((difference @ hessians * difference).sum())


@pytest.mark.parametrize("row_by_row", [0, 1e9], ids=["by columns", "row by row"])
@pytest.mark.parametrize("groups", [1, 2, 8])
def test_sparsity_is_exact_over_all_groups_and_the_rest_makes_up(groups, row_by_row, monkeypatch):
    monkeypatch.setattr(module, "ROW_BY_ROW", row_by_row)
    weight, mask, hessians = layer(groups, 8, 8 // groups, 3, 3)
    found = sparse_weight(weight, mask, hessians, 0.37)
    assert int((~found.mask).sum()) == round(0.37 * weight.numel())
    assert (found.weight[~found.mask] == 0).all()
    by_magnitude = weight * shrink_mask(weight.abs(), mask, 0.37)
    assert error(weight, found.weight, hessians) < 0.6 * error(weight, by_magnitude, hessians)


def test_two_of_four_input_channels_at_every_place_of_the_kernel():
    weight, mask, hessians = layer(1, 6, 8, 3, 3)
    found = sparse_weight(weight, mask, hessians, 0.5, NM(2, 4))
    kept = found.mask.unflatten(1, (2, 4)).sum(2)
    assert (kept == 2).all()


def test_the_order_of_columns_leads_back():
    # The input that is large at one place of the kernel decides: its weights stay.
    weight = torch.ones(2, 4, 1, 3)
    diagonal = torch.ones(12, dtype=torch.float64)
    diagonal[torch.tensor([1, 4, 9, 11])] = 100  # (channel, place): (0, 1), (1, 1), (3, 0), (3, 2)
    found = sparse_weight(weight, torch.ones_like(weight, dtype=torch.bool), diagonal.diag()[None], 0.5, NM(2, 4))
    for channel, place in ((0, 1), (1, 1), (3, 0), (3, 2)):
        assert found.mask[:, channel, 0, place].all()


def test_groups_are_as_good_as_each_alone():
    weight, mask, hessians = layer(2, 8, 4)
    found = sparse_weight(weight, mask, hessians, 0.5, Element())
    for group in range(2):
        rows = slice(4 * group, 4 * group + 4)
        alone = obs_update(weight[rows], hessians[group], found.mask[rows])
        torch.testing.assert_close(found.weight[rows], alone)


@pytest.mark.parametrize("granularity", [Element(), NM(2, 4)], ids=str)
def test_a_hessian_that_is_not_definite_is_answered(granularity):
    weight, mask, hessians = layer(1, 6, 8)
    with pytest.raises(UserError, match="dampening: too small"):
        sparse_weight(weight, mask, -hessians, 0.5, granularity)
