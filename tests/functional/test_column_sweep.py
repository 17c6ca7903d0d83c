"""Masks by a sweep over columns: by hand, against one choice for all, exact counts."""

import pytest
import torch

from micronet_cli.functional import column_sweep
from micronet_cli.functional.column_sweep import swept_mask
from micronet_cli.functional.granularity import NM, Element
from micronet_cli.functional.masks import shrink_mask
from micronet_cli.functional.second_order import damped, obs_update

HESSIAN = torch.tensor([[2.0, 1.0], [1.0, 2.0]])  # its inverse: [[2, -1], [-1, 2]] / 3


def ones(*shape):
    return torch.ones(shape, dtype=torch.bool)


def layer(rows=32, inputs=64):
    generator = torch.Generator().manual_seed(0)
    mixed = torch.randn(500, inputs, generator=generator) @ torch.randn(inputs, inputs, generator=generator)
    seen = mixed.relu()
    return torch.randn(rows, inputs, generator=generator), damped(seen.T @ seen / 500, 0.01)


def error(weight, mask, hessian):
    difference = (weight - obs_update(weight, hessian, mask)).double()
    return float((difference @ hessian * difference).sum())


def planned(weight, hessian, sparsity, granularity):
    alone = weight.double().square() / torch.linalg.inv(hessian).diagonal()
    return shrink_mask(alone, ones(*weight.shape), sparsity, granularity)


def test_what_made_up_for_its_neighbour_stays(monkeypatch):
    # One column at a time. Row 0 loses its first weight, 1, whose neighbour becomes 2 + 1/2. Alone that costs
    # 2.5^2 * 2 = 12.5, more than row 1's 2.4^2 * 2: with its 2 unchanged, row 0 would have lost both.
    monkeypatch.setattr(column_sweep, "BLOCK", 1)
    weight = torch.tensor([[1.0, 2.0], [9.0, 2.4]])
    plan = torch.tensor([[False, False], [True, True]])
    found = swept_mask(weight, HESSIAN, ones(2, 2), plan, Element())
    assert found.tolist() == [[False, True], [True, False]]


@pytest.mark.parametrize("granularity", [Element(), NM(2, 4)], ids=str)
def test_better_than_the_plan_at_the_same_sparsity(granularity):
    weight, hessian = layer()
    plan = planned(weight, hessian, 0.5, granularity)
    found = swept_mask(weight, hessian, ones(32, 64), plan, granularity)
    assert int(found.sum()) == int(plan.sum()) == 32 * 64 // 2
    assert error(weight, found, hessian) < 0.98 * error(weight, plan, hessian)


def test_two_of_four_in_every_group():
    weight, hessian = layer(rows=5)
    plan = planned(weight, hessian, 0.5, NM(2, 4))
    found = swept_mask(weight, hessian, ones(5, 64), plan, NM(2, 4))
    assert (found.unflatten(1, (-1, 4)).sum(2) == 2).all()


def test_what_was_dropped_stays_dropped():
    weight, hessian = layer()
    before = torch.rand(32, 64, generator=torch.Generator().manual_seed(1)) > 0.3
    plan = shrink_mask(weight.abs(), before, 0.6)
    found = swept_mask(weight, hessian, before, plan, Element())
    assert not (found & ~before).any()
    assert int(found.sum()) == int(plan.sum())
