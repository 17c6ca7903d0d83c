"""Masks shrink along the schedule, reach their target exactly and go on where they were."""

import copy

import pytest
import torch
from torch import nn

from micronet_cli.compression.pruning.pruner import Pruner, SparsityRule
from micronet_cli.functional.schedules import AGP
from micronet_cli.layers.effective_weight import effective_weight, original_weight


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(128, 4))


def pruner(sparsity=0.6, **options):
    return Pruner({"all": SparsityRule("(?!{stem}$).*", sparsity)}, AGP(end=0.5), **options)


def mask(layer):
    return effective_weight(layer).mask


def test_masks_only_shrink_while_weights_move():
    model, p = network(), pruner()
    p.attach(model)
    before = [mask(model[2]).clone(), mask(model[4]).clone()]
    for step in range(21):
        p.update(step, 20)
        with torch.no_grad():
            for layer in (model[2], model[4]):
                original_weight(layer).copy_(torch.randn_like(original_weight(layer)))
        now = [mask(model[2]).clone(), mask(model[4]).clone()]
        assert all(not (n & ~b).any() for n, b in zip(now, before, strict=True))
        before = now
    assert int((~before[1]).sum()) == round(512 * 0.6)


def test_update_tells_when_the_target_is_reached():
    model, p = network(), pruner()
    p.attach(model)
    assert [p.update(step, 4) for step in range(5)] == [False, False, True, True, True]


def test_initial_sparsity_is_where_the_schedule_begins():
    model, p = network(), pruner(initial_sparsity=0.05)
    p.attach(model)
    p.update(0, 10)
    assert int((~mask(model[4])).sum()) == round(512 * 0.05)


def test_inherited_mask_goes_on():
    model, first, second = network(), pruner(0.3), pruner(0.6)
    first.attach(model)
    first.update(1, 1)
    kept = mask(model[4]).clone()
    second.attach(model)
    second.update(1, 1)
    assert not (mask(model[4]) & ~kept).any()
    assert len(model[4].parametrizations["weight"]) == 1


def test_null_leaves_a_layer_alone():
    model = network()
    Pruner({"all": SparsityRule(".*", 0.5), "stem": SparsityRule("{stem}", None)}).attach(model)
    assert effective_weight(model[0]) is None
    assert effective_weight(model[2]) is not None


def test_pruned_weights_get_no_gradient():
    model, p = network(), pruner()
    p.attach(model)
    p.update(1, 1)
    model(torch.randn(2, 3, 8, 8)).sum().backward()
    assert (original_weight(model[2]).grad[~mask(model[2])] == 0).all()


def test_copies_stay_apart():
    model, p = network(), pruner()
    p.attach(model)
    copied = copy.deepcopy(model)
    p.update(1, 1)
    assert mask(copied[2]).all()
    assert not mask(model[2]).all()


@pytest.mark.parametrize("sparsity", [-0.1, 1.0, 1.5])
def test_impossible_sparsity_is_refused(sparsity):
    with pytest.raises(ValueError, match="fraction of zeros"):
        SparsityRule(".*", sparsity)
