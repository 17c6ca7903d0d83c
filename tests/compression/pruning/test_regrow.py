"""Masks that move: units are exchanged when due, at constant sparsity, and resumed runs agree."""

import copy

import pytest
import timm.layers
import torch
from torch import nn

from micronet_cli.compression.pruning.pruner import Pruner, SparsityRule
from micronet_cli.compression.pruning.regrow import Regrow, begin_at_zero
from micronet_cli.errors import UserError
from micronet_cli.functional.granularity import NM, Block, Element, Filter
from micronet_cli.functional.pruning import Taylor
from micronet_cli.functional.schedules import Constant
from micronet_cli.layers.effective_weight import attach_mask, effective_weight, original_weight

TOTAL = 12
EVERY_THIRD = Regrow(fraction=0.5, interval=0.25, end=0.9)  # steps 3, 6, 9


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(128, 4))


def make(**options):
    options = {"regrow": EVERY_THIRD} | options
    return Pruner({"all": SparsityRule("(?!{stem}$).*", 0.5)}, Constant(), **options)


def step(model, pruner, number):
    pruner.update(number, TOTAL)
    generator = torch.Generator().manual_seed(number)
    model(torch.randn(4, 3, 8, 8, generator=generator)).square().sum().backward()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter -= 1e-3 * parameter.grad
            parameter.grad = None


def masks(model):
    return [effective_weight(model[i]).mask.clone() for i in (2, 4)]


@pytest.mark.parametrize("granularity", [Element(), Block([4, 4]), Filter()], ids=str)
def test_masks_move_when_due_at_constant_sparsity(granularity):
    model, pruner = network(), make(granularity=granularity)
    pruner.attach(model)
    moved, before = [], None
    for number in range(TOTAL):
        step(model, pruner, number)
        after = masks(model)
        assert [granularity.units(m.float(), m)[0].count_nonzero() for m in after] == [
            granularity.count(m.shape) - round(granularity.count(m.shape) * 0.5) for m in after
        ]
        if before is not None and not all(torch.equal(a, b) for a, b in zip(after, before, strict=True)):
            moved.append(number)
        before = after
    # Of four filters the later, smaller exchanges may bring back the very one that went.
    assert moved == [3, 6, 9] if not isinstance(granularity, Filter) else moved[0] == 3 and {3, 6, 9} >= set(moved)


def test_what_comes_back_has_the_largest_gradient_and_begins_at_zero():
    model, pruner = network(), make()
    pruner.attach(model)
    for number in range(2):
        step(model, pruner, number)
    pruner.update(2, TOTAL)
    before = masks(model)[1]
    # The same loss as a plain network sees it has a gradient at the zeros too.
    plain = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(128, 4))
    with torch.no_grad():
        for i in (0, 2, 4):
            plain[i].weight.copy_(model[i].weight)
            plain[i].bias.copy_(model[i].bias)
    images = torch.randn(4, 3, 8, 8)
    for either in (plain, model):
        either(images).square().sum().backward()
    gradient = plain[4].weight.grad
    assert torch.allclose(effective_weight(model[4]).dense_gradient, gradient)
    pruner.update(3, TOTAL)
    grown = masks(model)[1] & ~before
    assert grown.any()
    assert (original_weight(model[4])[grown] == 0).all()
    left_out = ~masks(model)[1] & ~before
    assert gradient[grown].abs().min() >= gradient[left_out].abs().max()


@pytest.mark.parametrize("stop", [1, 2, 3, 4, 9])
def test_resumed_run_has_the_same_masks(stop):
    whole, pruner = network(), make()
    pruner.attach(whole)
    for number in range(TOTAL):
        step(whole, pruner, number)
    part, pruner = network(), make()
    pruner.attach(part)
    for number in range(stop):
        step(part, pruner, number)
    pruner.update(stop - 1, TOTAL)  # as an epoch's end asks again
    resumed, pruner = network(), make()
    pruner.attach(resumed)
    resumed.load_state_dict(copy.deepcopy(part.state_dict()))
    for number in range(stop, TOTAL):
        step(resumed, pruner, number)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


def test_evaluation_and_copies_leave_the_gradient_alone():
    model, pruner = network(), make()
    pruner.attach(model)
    for number in range(3):
        step(model, pruner, number)
    pruner.update(3, TOTAL)
    pruner.update(5, TOTAL)  # watching
    copied = copy.deepcopy(model)
    copied(torch.randn(2, 3, 8, 8)).sum().backward()
    assert not effective_weight(model[4]).dense_gradient.any()
    with torch.no_grad():
        model.eval()(torch.randn(2, 3, 8, 8))
    assert not effective_weight(model[4]).dense_gradient.any()


def test_nothing_is_left_behind_on_the_layers():
    model, pruner = network(), make()
    pruner.attach(model)
    for number in range(TOTAL):
        step(model, pruner, number)
    assert not effective_weight(model[4])._forward_hooks


def test_exchange_without_a_gradient_is_an_error():
    model, pruner = network(), make()
    pruner.attach(model)
    pruner.update(2, TOTAL)
    with pytest.raises(UserError, match="no gradient reached"):
        pruner.update(3, TOTAL)


@pytest.mark.parametrize("options", [{"granularity": NM(2, 4)}, {"importance": Taylor()}])
def test_what_does_not_go_together_is_refused(options):
    with pytest.raises(ValueError, match="regrow="):
        make(**options)


@pytest.mark.parametrize("options", [{"fraction": 0}, {"interval": 1.0}, {"end": 1.5}])
def test_impossible_values_are_refused(options):
    with pytest.raises(ValueError, match="must be in"):
        Regrow(**options)


@pytest.mark.parametrize("make_layer", [nn.Conv2d, timm.layers.StdConv2d, timm.layers.ScaledStdConv2d])
def test_what_grows_is_zero_as_a_product_sees_it(make_layer):
    torch.manual_seed(0)
    layer = make_layer(4, 3, 1)
    attach_mask(layer)
    grown = torch.zeros(3, 4, 1, 1, dtype=torch.bool)
    grown[0, :2] = True
    grown[2] = True
    others = layer.weight[1].clone()
    begin_at_zero(layer, grown)
    assert layer.weight[grown].abs().max() < 1e-6
    assert layer.weight[0, 2:].abs().min() > 1e-3
    assert torch.equal(layer.weight[1], others)


def test_a_normed_layer_does_not_grow_back():
    model = network()
    nn.utils.parametrizations.weight_norm(model[2])
    with pytest.raises(ValueError, match=r"prune.rules.all: 2: a norm makes its weight.*prune.regrow=null"):
        make().attach(model)
