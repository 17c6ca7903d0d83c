"""The effective weight: mask before quantiser, one parametrization, names that checkpoints rely on."""

import copy

import pytest
import torch
from torch import nn

from micronet_cli.layers.effective_weight import (
    EffectiveWeight,
    attach_effective_weight,
    attach_mask,
    check_zero,
    effective_weight,
    has_computed_weight,
    incoming_weight,
    mask_of,
    original_weight,
)
from micronet_cli.layers.fake_quantize import WeightFakeQuantize


class WithoutZero(WeightFakeQuantize):
    has_zero = False


def linear(*rows):
    layer = nn.Linear(len(rows[0]), len(rows), bias=False)
    layer.weight.data = torch.tensor(rows)
    return layer


def test_a_plain_layer_has_no_effective_weight():
    layer = linear([1.0, 2.0])
    assert effective_weight(layer) is None
    assert original_weight(layer) is layer.weight


def test_a_foreign_parametrization_is_not_taken_for_ours():
    layer = nn.utils.parametrizations.orthogonal(nn.Linear(2, 2))
    assert effective_weight(layer) is None


def test_attach_effective_weight_changes_no_value_and_attaches_once():
    layer = linear([1.0, 2.0])
    parameter = layer.weight
    attached = attach_effective_weight(layer)
    assert attach_effective_weight(layer) is attached
    assert effective_weight(layer) is attached
    assert original_weight(layer) is parameter
    assert torch.equal(layer.weight, parameter)


def test_attach_mask_keeps_everything_at_first():
    layer = linear([1.0, 0.0], [2.0, 3.0])
    mask = attach_mask(layer).mask
    assert mask.dtype == torch.bool
    assert mask.tolist() == [[True, True], [True, True]]


def test_mask_of_is_the_mask_itself():
    layer = nn.Linear(2, 2)
    mask = attach_mask(layer).mask
    assert mask_of(layer) is mask


def test_attach_mask_keeps_an_inherited_mask():
    layer = linear([1.0, 2.0])
    mask = attach_mask(layer).mask
    mask[0, 0] = False
    assert attach_mask(layer).mask is mask


def test_mask_goes_before_the_quantiser():
    layer = linear([1.0, 2.0, 30.0])
    parts = attach_mask(layer)
    parts.fake_quantize = WeightFakeQuantize(2)
    parts.mask[0, 2] = False  # without 30 the range is 0 .. 2 and a step 2/3
    torch.testing.assert_close(layer.weight, torch.tensor([[4 / 3, 2.0, 0.0]]))
    scale, zero_point = parts.qparams(original_weight(layer))
    assert (scale.item(), zero_point.item()) == (1.5, 0)


def test_masked_is_the_weight_itself_without_a_mask():
    weight = torch.tensor([1.0, 2.0])
    assert EffectiveWeight().masked(weight) is weight


def test_gradient_is_zero_where_the_mask_is():
    layer = linear([1.0, 2.0])
    attach_mask(layer).mask[0, 1] = False
    layer(torch.ones(1, 2)).sum().backward()
    assert original_weight(layer).grad.tolist() == [[1.0, 0.0]]


@pytest.mark.parametrize("mask_first", [True, False])
def test_names_in_a_checkpoint_do_not_depend_on_the_order_of_attachment(mask_first):
    layer = linear([1.0, 2.0])
    if mask_first:
        attach_mask(layer)
    attach_effective_weight(layer).fake_quantize = WeightFakeQuantize(4)
    attach_mask(layer)
    assert list(layer.state_dict()) == ["parametrizations.weight.original", "parametrizations.weight.0.mask"]


def test_copies_have_masks_of_their_own():
    layer = linear([1.0, 2.0])
    mask = attach_mask(layer).mask
    copied = copy.deepcopy(layer)
    mask[0, 0] = False
    assert copied.weight.tolist() == [[1.0, 2.0]]


def test_check_zero_names_the_scheme_that_has_no_zero():
    check_zero(None)
    check_zero(WeightFakeQuantize(4))
    with pytest.raises(ValueError, match="needs a level for 0, which WithoutZero lacks; ternary has one"):
        check_zero(WithoutZero(1))


def test_attach_mask_is_refused_where_the_quantiser_has_no_zero():
    layer = linear([1.0, 2.0])
    attach_effective_weight(layer).fake_quantize = WithoutZero(1)
    with pytest.raises(ValueError, match="level for 0"):
        attach_mask(layer)
    assert effective_weight(layer).mask is None


NORMS = {
    "weight_norm": nn.utils.parametrizations.weight_norm,
    "spectral_norm": nn.utils.parametrizations.spectral_norm,
    "orthogonal": nn.utils.parametrizations.orthogonal,
}


@pytest.mark.parametrize("norm", NORMS.values(), ids=NORMS)
def test_a_normed_weight_is_masked_behind_its_norm(norm):
    layer = norm(nn.Linear(4, 4).double()).eval()
    weight = layer.weight.detach().clone()
    parts = attach_mask(layer)
    assert torch.allclose(layer.weight, weight, rtol=1e-9)
    assert torch.allclose(incoming_weight(layer), weight, rtol=1e-9)
    parts.mask[0] = False
    assert torch.equal(layer.weight[0], torch.zeros(4).double())
    assert torch.allclose(layer.weight[1:], weight[1:], rtol=1e-9)
    assert original_weight(layer).shape == (4, 4)
    assert has_computed_weight(layer)


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("norm", [nn.utils.weight_norm, nn.utils.spectral_norm], ids=["weight_norm", "spectral_norm"])
def test_a_weight_that_a_hook_makes_is_refused(norm):
    layer = norm(nn.Linear(4, 4))
    assert has_computed_weight(layer)
    with pytest.raises(ValueError, match=r"made by a hook .* torch\.nn\.utils\.parametrizations can be compressed"):
        attach_mask(layer)


def test_a_mask_and_a_quantiser_do_not_make_a_weight_computed():
    layer = linear([1.0, 2.0])
    assert not has_computed_weight(layer)
    attach_mask(layer)
    assert not has_computed_weight(layer)
    assert incoming_weight(layer) is original_weight(layer)
