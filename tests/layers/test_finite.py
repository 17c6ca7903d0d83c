"""A number that is not finite is found where it was made first, and said in a layer's plain name."""

import pytest
import torch
from torch import nn

from micronet_cli.layers.effective_weight import attach_effective_weight
from micronet_cli.layers.finite import (
    FiniteOutputs,
    NotFinite,
    NotFiniteValues,
    first_non_finite,
    is_finite,
    name_of,
    non_finite_source,
    non_finite_state,
    plain_name,
)


class Times(nn.Module):
    """The output is a multiple of the input, made of no module."""

    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return x * self.factor


class Clipped(nn.Sequential):
    """What is not finite inside does not show in the output."""

    def forward(self, x):
        return super().forward(x).clamp(-1, 1)


def images():
    return torch.ones(3, 2)


def with_weight(layer, value):
    with torch.no_grad():
        layer.weight[0, 0] = value
    return layer


def test_the_innermost_layer_that_made_it_first_is_named():
    model = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Identity(), Times(float("inf"))), nn.Linear(2, 2))
    assert first_non_finite(model, images()) == "1.1"
    assert non_finite_source(model, images()) == "layer 1.1"


def test_a_network_of_finite_layers_has_none():
    model = nn.Sequential(nn.Linear(2, 2))
    assert first_non_finite(model, images()) is None
    assert non_finite_source(model, images()) == "the objective (every layer's output is finite)"


def test_what_a_network_does_between_its_layers_is_its_own():
    class Between(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(2, 2)

        def forward(self, x):
            return self.layer(x) * float("inf")

    assert non_finite_source(Between(), images()) == "the network's last operation"


@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "masked and quantised"])
def test_a_spoilt_weight_is_named_with_its_layer(compressed):
    model = nn.Sequential(nn.Linear(2, 2), with_weight(nn.Linear(2, 2), float("nan")))
    if compressed:
        attach_effective_weight(model[1])
    assert non_finite_source(model, images()) == "layer 1, whose weight is not finite"


def test_a_spoilt_statistic_is_named_with_its_layer():
    model = nn.Sequential(nn.BatchNorm1d(2)).eval()
    model[0].running_var.fill_(float("nan"))
    assert non_finite_state(model[0]) == "running_var"
    assert non_finite_source(model, images()) == "layer 0, whose running_var is not finite"


@pytest.mark.parametrize(
    ("value", "spoilt"), [(float("-inf"), None), (float("nan"), "limit")], ids=["infinite", "not a number"]
)
def test_limits_of_a_clamp_may_be_infinite(value, spoilt):
    model = nn.Linear(2, 2)
    model.register_buffer("limit", torch.tensor(value))
    assert non_finite_state(model) == spoilt


def test_statistics_may_not_be_infinite():
    model = nn.BatchNorm1d(2)
    model.running_var.fill_(float("inf"))
    assert non_finite_state(model) == "running_var"


def test_images_that_are_not_finite_are_blamed_themselves():
    spoilt = torch.full((1, 2), float("nan"))
    assert non_finite_source(nn.Sequential(nn.Linear(2, 2)), spoilt) == "the images themselves"


def test_no_hook_is_left_behind():
    model = nn.Sequential(nn.Linear(2, 2))
    first_non_finite(model, images())
    assert not model._forward_hooks
    assert not model[0]._forward_hooks


def test_a_batch_is_looked_at_once_the_next_one_is_there():
    model = nn.Sequential(Times(float("nan")))
    outputs = FiniteOutputs(model)
    outputs.add(images(), model(images()))
    with pytest.raises(NotFinite, match=r"^layer 0$"):
        outputs.add(images(), images())


def test_the_last_batch_is_looked_at_in_the_end():
    model = nn.Sequential(Times(float("nan")))
    outputs = FiniteOutputs(model)
    outputs.finish()
    outputs.add(images(), model(images()))
    with pytest.raises(NotFinite):
        outputs.finish()


def test_layers_whose_overflow_does_not_reach_the_output_do_not_run_twice():
    calls = []
    model = Clipped(nn.Linear(2, 2), Times(float("inf")))
    model[0].register_forward_hook(lambda *_: calls.append(1))
    outputs = FiniteOutputs(model)
    outputs.add(images(), model(images()))
    outputs.finish()
    assert calls == [1]


KINDS = {
    "numbers": (torch.ones(2), True),
    "one is not": (torch.tensor([1.0, torch.inf]), False),
    "in a tuple": ((torch.ones(1), [torch.tensor(torch.nan)]), False),
    "whole numbers": (torch.tensor([1, 2]), True),
    "no tensor": ("text", True),
}


@pytest.mark.parametrize(("output", "expected"), KINDS.values(), ids=KINDS.keys())
def test_is_finite(output, expected):
    assert is_finite(output) is expected


def test_names_are_those_without_compression():
    model = nn.Sequential(nn.Linear(2, 2))
    assert name_of(model, model[0]) == "0"
    assert plain_name("0.parametrizations.weight.original") == "0.weight"
    assert plain_name("0.weight") == "0.weight"
    assert str(NotFiniteValues(model[0], "hessian")) == "hessian of a layer are not finite"
