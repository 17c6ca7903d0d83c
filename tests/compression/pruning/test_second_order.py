"""One-shot pruning by inputs: Hessians, the weights that make up for it, resumed runs."""

import copy

import pytest
import torch
from timm.layers import Conv2dSame
from torch import nn

from micronet_cli.compression.pruning.pruner import Pruner, SparsityRule
from micronet_cli.compression.pruning.second_order import SecondOrderPruner, columns
from micronet_cli.errors import UserError
from micronet_cli.functional.schedules import OneShot
from micronet_cli.layers.effective_weight import effective_weight, original_weight

TOTAL = 10


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=2, padding=1, stride=2), nn.Flatten(), nn.Linear(72, 4)
    )


def make(sparsity=0.5, **options):
    options = {"at": 0.5, "calibration": 0.3} | options
    return SecondOrderPruner({"all": SparsityRule("(?!{stem}$).*", sparsity)}, **options)


def step(model, pruner, number):
    settled = pruner.update(number, TOTAL)
    generator = torch.Generator().manual_seed(number)
    model(torch.randn(8, 3, 8, 8, generator=generator).relu()).square().sum().backward()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter -= 1e-4 * parameter.grad
            parameter.grad = None
    return settled


def masks(model):
    return [effective_weight(model[i]).mask for i in (2, 4)]


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 6, 3, padding=1),
        nn.Conv2d(4, 6, (3, 1), stride=2, padding=(0, 2), dilation=2, groups=2),
        nn.Conv2d(4, 4, (2, 3), padding="same", groups=4),
        nn.Conv2d(4, 6, 3, padding="valid"),
    ],
    ids=str,
)
def test_columns_times_weight_is_the_convolution(layer):
    torch.manual_seed(0)
    images = torch.randn(2, 4, 7, 9)
    wanted = layer(images) - layer.bias[:, None, None]
    rows = layer.weight.flatten(1).unflatten(0, (layer.groups, -1))
    products = columns(layer, images) @ rows.transpose(1, 2)  # [groups, n, rows]
    found = products.permute(0, 2, 1).flatten(0, 1).unflatten(1, (2, *wanted.shape[2:])).transpose(0, 1)
    assert torch.allclose(found, wanted, atol=1e-5)


def test_sparsity_is_exact_once_and_zeros_survive():
    model, pruner = network(), make(sparsity=0.63)
    pruner.attach(model)
    settled = [step(model, pruner, number) for number in range(TOTAL)]
    assert settled == [False] * 5 + [True] * 5
    for layer, mask in zip((model[2], model[4]), masks(model), strict=True):
        assert int((~mask).sum()) == round(mask.numel() * 0.63)
        assert (layer.weight[~mask] == 0).all()


def test_gathered_hessian_is_that_of_the_inputs():
    model, pruner = network(), make(at=0.2, calibration=0.2)
    pruner.attach(model)
    wanted = torch.zeros(72, 72)
    for _ in range(2):
        pruner.update(0, TOTAL)
        images = torch.randn(8, 3, 8, 8)
        x = model[:4](images).detach()
        wanted += 2 * x.T @ x / 8
        model(images)
    assert torch.allclose(effective_weight(model[4]).hessian[0], wanted, atol=1e-5)


def test_output_stays_nearer_than_with_the_magnitude():
    errors = []
    for pruner in (make(), Pruner({"all": SparsityRule("(?!{stem}$).*", 0.5)}, OneShot(0.5))):
        model = network()
        pruner.attach(model)
        images = torch.randn(200, 3, 8, 8, generator=torch.Generator().manual_seed(7)).relu()
        for number in (2, 3, 4):
            pruner.update(number, TOTAL)
            model(images)
        with torch.no_grad():
            before = model(images)
            pruner.update(5, TOTAL)
            errors.append(float((model(images) - before).square().mean()))
    assert errors[0] < 0.7 * errors[1]


@pytest.mark.parametrize("stop", [1, 3, 5, 6])
def test_resumed_run_has_the_same_weights_and_masks(stop):
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


def test_inherited_mask_goes_on():
    model, first, second = network(), Pruner({"all": SparsityRule("(?!{stem}$).*", 0.3)}), make(sparsity=0.6)
    first.attach(model)
    first.update(1, 1)
    kept = [m.clone() for m in masks(model)]
    second.attach(model)
    for number in range(TOTAL):
        step(model, second, number)
    for now, before in zip(masks(model), kept, strict=True):
        assert not (now & ~before).any()
        assert int((~now).sum()) == round(now.numel() * 0.6)


def test_copies_and_evaluation_gather_nothing():
    model, pruner = network(), make()
    pruner.attach(model)
    pruner.update(2, TOTAL)
    copied = copy.deepcopy(model)
    with torch.no_grad():
        model.train()(torch.randn(2, 3, 8, 8))
    model.eval()(torch.randn(2, 3, 8, 8))
    assert not effective_weight(model[4]).hessian.any()
    copied.train()(torch.randn(2, 3, 8, 8))
    assert not effective_weight(model[4]).hessian.any()


def test_without_inputs_it_is_the_magnitude():
    model, pruner = network(), make()
    weight = model[4].weight.detach().clone()
    pruner.attach(model)
    assert pruner.update(TOTAL, TOTAL)
    mask = masks(model)[1]
    assert weight[mask].abs().min() >= weight[~mask].abs().max()
    assert torch.equal(original_weight(model[4]), weight)


def test_no_input_although_gathered_is_an_error():
    model, pruner = network(), make()
    pruner.attach(model)
    pruner.update(2, TOTAL)
    with pytest.raises(UserError, match="no input of 2 was seen"):
        pruner.update(5, TOTAL)


def test_too_large_and_unknown_layers_are_named():
    with pytest.raises(ValueError, match=r"prune\.rules\.all: 4: has 72 inputs, at most prune\.max_inputs=40"):
        make(max_inputs=40).attach(network())
    with pytest.raises(ValueError, match="1: must be a linear layer or a 2-d convolution"):
        make().attach(nn.Sequential(nn.Linear(2, 2), nn.Conv1d(2, 2, 3)))


PADDED = {
    "reflect": nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect"),
    "as TensorFlow": Conv2dSame(2, 3, 3, stride=2),
    "grouped": nn.Conv2d(2, 4, 3, padding=(1, 0), groups=2),
}


@pytest.mark.parametrize("layer", PADDED.values(), ids=PADDED)
@torch.no_grad()
def test_columns_are_read_with_the_padding_of_the_layer(layer):
    images = torch.randn(2, 2, 7, 6)
    rows = columns(layer, images)
    weights = layer.weight.flatten(1).unflatten(0, (layer.groups, -1))
    made = (weights @ rows.transpose(1, 2)).flatten(0, 1) + layer.bias[:, None]
    torch.testing.assert_close(made, layer(images).transpose(0, 1).flatten(1))


@pytest.mark.parametrize("options", [{"at": 0.0}, {"calibration": 0.6}, {"dampening": 0.0}, {"max_inputs": 0}])
def test_impossible_values_are_refused(options):
    with pytest.raises(ValueError, match="must be"):
        make(**options)
