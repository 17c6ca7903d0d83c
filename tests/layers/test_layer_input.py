"""A layer's input is found and replaced whether it is given by position or by name."""

import pytest
import torch
from torch import nn

from micronet_cli.layers.fake_quantize import ActivationFakeQuantize, attach_input_fake_quantize
from micronet_cli.layers.layer_input import first_input, watch_input, with_first_input

CALLS = {
    "by position": lambda layer, x: layer(x),
    "by name": lambda layer, x: layer(input=x),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_the_input_is_watched(call):
    seen = []
    layer = nn.Linear(2, 1)
    handle = watch_input(layer, seen.append)
    x = torch.ones(1, 2)
    call(layer, x)
    assert seen == [x]
    handle.remove()
    call(layer, x)
    assert len(seen) == 1


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_the_input_is_quantised(call):
    layer = nn.Conv2d(1, 1, 1, bias=False)
    nn.init.ones_(layer.weight)
    quantizer = ActivationFakeQuantize(1)
    attach_input_fake_quantize(layer, quantizer)
    x = torch.linspace(0, 1, 4).reshape(1, 1, 2, 2)
    assert call(layer, x).unique().tolist() == [0, 1]


def test_other_arguments_stay():
    assert with_first_input(1, (0, 2), {"a": 3}) == ((1, 2), {"a": 3})
    assert with_first_input(1, (), {"x": 0, "a": 3}) == ((), {"x": 1, "a": 3})
    assert first_input((), {"x": 0, "a": 3}) == 0
