"""What holds for every criterion, scope and granularity."""

import copy
from typing import NamedTuple

import pytest
import torch
from torch import nn

from micronet_cli.compression.pruning.pruner import Pruner, SparsityRule
from micronet_cli.compression.quantization.quantizer import BitsRule, Quantizer
from micronet_cli.functional.granularity import NM, Block, Element, Filter
from micronet_cli.functional.pruning import Movement, Random, Taylor, lamp, magnitude
from micronet_cli.functional.schedules import AGP, OneShot
from micronet_cli.layers.effective_weight import effective_weight, original_weight

TOTAL = 12
CRITERIA = [magnitude, lamp, Random(), Taylor(), Movement()]
GRANULARITIES = [Element(), Block([4, 4]), NM(2, 4), Filter()]
every_criterion = pytest.mark.parametrize("importance", CRITERIA, ids=lambda c: getattr(c, "__name__", repr(c)))
every_granularity = pytest.mark.parametrize("granularity", GRANULARITIES, ids=str)
every_scope = pytest.mark.parametrize("scope", ["layer", "global"])


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(128, 4))


def make(schedule=None, sparsity=0.5, **options):
    return Pruner({"all": SparsityRule("(?!{stem}$).*", sparsity)}, schedule or AGP(begin=0.1, end=0.9), **options)


def train(model, pruner, first, last):
    """Steps first to last - 1, each with its own images; plain SGD, so that no other state decides."""
    for step in range(first, last):
        pruner.update(step, TOTAL)
        generator = torch.Generator().manual_seed(step)
        model(torch.randn(4, 3, 8, 8, generator=generator)).square().sum().backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= 1e-3 * parameter.grad
                parameter.grad = None


def masks(model):
    return [effective_weight(model[i]).mask for i in (2, 4)]


def count(granularity, mask):
    """Dropped units."""
    if isinstance(granularity, Filter):
        return int((~mask.flatten(1).any(1)).sum())
    if isinstance(granularity, Block):
        cells = torch.stack([c for row in mask.split(4, 0) for c in row.split(4, 1)]).any(1).any(1)
        return int((~cells).sum())
    return int((~mask).sum())


@every_scope
@every_granularity
@every_criterion
def test_sparsity_is_exact_masks_shrink_and_zeros_survive(importance, granularity, scope):
    model, pruner = network(), make(importance=importance, granularity=granularity, scope=scope)
    pruner.attach(model)
    before = [m.clone() for m in masks(model)]
    for step in range(TOTAL):
        train(model, pruner, step, step + 1)
        assert not any((now & ~earlier).any() for now, earlier in zip(masks(model), before, strict=True))
        before = [m.clone() for m in masks(model)]
    assert pruner.update(TOTAL, TOTAL)
    dropped = [count(granularity, m) for m in masks(model)]
    units = [granularity.count(m.shape) for m in masks(model)]
    if scope == "layer":
        assert dropped == [round(u * 0.5) for u in units]
    assert sum(dropped) == round(sum(u * 0.5 for u in units))
    for layer, mask in zip((model[2], model[4]), masks(model), strict=True):
        assert (layer.weight[~mask] == 0).all()
        assert mask.any()


@every_scope
@every_granularity
@every_criterion
@pytest.mark.parametrize("stop", [1, 5, 11])
def test_resumed_run_has_the_same_masks(importance, granularity, scope, stop):
    options = {"importance": importance, "granularity": granularity, "scope": scope}
    whole, pruner = network(), make(**options)
    pruner.attach(whole)
    train(whole, pruner, 0, TOTAL)
    pruner.update(TOTAL, TOTAL)

    part, pruner = network(), make(**options)
    pruner.attach(part)
    train(part, pruner, 0, stop)
    pruner.update(stop - 1, TOTAL)  # as an epoch's end asks again
    state = {name: tensor.clone() for name, tensor in part.state_dict().items()}

    resumed, pruner = network(), make(**options)
    pruner.attach(resumed)
    resumed.load_state_dict(state)
    train(resumed, pruner, stop, TOTAL)
    pruner.update(TOTAL, TOTAL)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


@every_criterion
def test_copies_stay_apart(importance):
    model, pruner = network(), make(importance=importance)
    pruner.attach(model)
    train(model, pruner, 0, 3)
    copied = copy.deepcopy(model)
    state = {name: tensor.clone() for name, tensor in copied.state_dict().items()}
    train(model, pruner, 3, TOTAL)
    copied(torch.randn(2, 3, 8, 8)).sum().backward()
    assert all(torch.equal(tensor, state[name]) for name, tensor in copied.state_dict().items())


@every_criterion
@every_scope
def test_inherited_masks_go_on(importance, scope):
    model = network()
    for sparsity in (0.3, 0.6):
        kept = None if sparsity == 0.3 else [m.clone() for m in masks(model)]
        pruner = make(sparsity=sparsity, importance=importance, scope=scope)
        pruner.attach(model)
        train(model, pruner, 0, TOTAL)
        pruner.update(TOTAL, TOTAL)
    assert not any((now & ~earlier).any() for now, earlier in zip(masks(model), kept, strict=True))
    assert sum(int((~m).sum()) for m in masks(model)) == round((576 + 512) * 0.6)


@pytest.mark.parametrize("importance", [Taylor(decay=1.0), Movement()], ids=str)
def test_gathered_scores_are_those_of_plain_gradients(importance):
    model, pruner = network(), make(OneShot(1.0), importance=importance)
    pruner.attach(model)
    wanted = torch.zeros_like(original_weight(model[4]))
    for step in range(3):
        pruner.update(step, TOTAL)
        model(torch.randn(4, 3, 8, 8)).square().sum().backward()
        weight = original_weight(model[4])
        product = weight.detach() * weight.grad
        wanted += product.abs() if isinstance(importance, Taylor) else -product
        weight.grad = None
    assert torch.equal(effective_weight(model[4]).pruning_scores, wanted)


def test_gradient_criterion_drops_nothing_before_the_first_gradient():
    model, pruner = network(), make(OneShot(0.0), importance=Taylor())
    pruner.attach(model)
    assert not pruner.update(0, TOTAL)
    assert all(m.all() for m in masks(model))
    train(model, pruner, 0, 1)
    assert pruner.update(1, TOTAL)
    weakest = effective_weight(model[4]).pruning_scores.flatten().argmin()
    assert not masks(model)[1].flatten()[weakest]


def test_without_any_gradient_the_magnitude_stands_in():
    model, pruner = network(), make(importance=Movement())
    pruner.attach(model)
    assert pruner.update(1, 1)
    weight, mask = original_weight(model[4]).detach().abs(), masks(model)[1]
    assert weight[mask].min() >= weight[~mask].max()


def test_gradient_hooks_go_when_the_target_is_reached():
    model, pruner = network(), make(OneShot(0.5), importance=Taylor())
    pruner.attach(model)
    train(model, pruner, 0, TOTAL // 2)
    assert original_weight(model[4])._backward_hooks
    train(model, pruner, TOTAL // 2, TOTAL)
    assert not original_weight(model[4])._backward_hooks


def test_gradients_that_are_not_finite_leave_the_scores_finite():
    model, pruner = network(), make(OneShot(1.0), importance=Taylor())
    pruner.attach(model)
    pruner.update(0, TOTAL)
    (model(torch.randn(4, 3, 8, 8)).sum() * float("inf")).backward()
    assert effective_weight(model[4]).pruning_scores.isfinite().all()


def test_frozen_layers_are_not_listened_to():
    model, pruner = network(), make(importance=Taylor())
    pruner.attach(model)
    original_weight(model[4]).requires_grad_(False)
    pruner.update(0, TOTAL)
    assert pruner._listening is not None
    assert len(pruner._listening.handles) == 1


@every_granularity
def test_zeros_survive_a_quantiser(granularity):
    model, pruner = network(), make(granularity=granularity)
    pruner.attach(model)
    pruner.update(TOTAL, TOTAL)
    Quantizer({"all": BitsRule(".*")}).attach(model)
    model(torch.randn(2, 3, 8, 8))
    for layer, mask in zip((model[2], model[4]), masks(model), strict=True):
        assert (layer.weight[~mask] == 0).all()


def test_global_scope_takes_from_where_it_matters_least():
    model, pruner = network(), make(scope="global")
    with torch.no_grad():
        model[4].weight *= 1e-3
    pruner.attach(model)
    pruner.update(TOTAL, TOTAL)
    conv, linear = (int((~m).sum()) for m in masks(model))
    assert (conv, linear) == (544 - 511, 511)  # the linear layer keeps its best


def test_nm_wants_full_groups_and_names_the_layer():
    pruner = Pruner({"all": SparsityRule(".*", 0.5)}, granularity=NM(2, 4))
    with pytest.raises(ValueError, match=r"prune\.rules\.all: 0 has an input dimension of 3, .* needs a multiple of 4"):
        pruner.attach(network())


class Refused(NamedTuple):
    """Options that do not go, and what is said of them."""

    options: dict
    said: str


REFUSED = {
    "unknown scope": Refused({"scope": "model"}, "scope=model: must be layer or global"),
    "no granularity": Refused({"granularity": magnitude}, "granularity="),
    "a class in place of an object": Refused({"importance": Taylor}, r"importance=Taylor: .*_target_"),
    "more than n:m leaves": Refused(
        {"granularity": NM(2, 4), "sparsity": 0.6}, r"rules\.all\.sparsity=0\.6: must be at most 0\.5 for"
    ),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_impossible_options_are_refused(case):
    with pytest.raises(ValueError, match=case.said):
        make(**case.options)
