"""A run that pauses goes on with what its layers have become, and leaves nothing behind."""

import threading

import pytest
import torch
from torch import nn

from micronet_cli.layers.fake_quantize import ActivationFakeQuantize, attach_input_fake_quantize
from micronet_cli.trace.paused import PausedRun


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 2))


def test_a_layer_changed_at_the_pause_is_what_goes_on():
    model, x = network(), torch.randn(4, 3)
    run = PausedRun(model, x)
    assert torch.equal(run.advance(model[0]), x)
    with torch.no_grad():
        model[0].weight.zero_()
        expected = model[:2](x)
    assert torch.equal(run.advance(model[2]), expected)
    assert not run.ended
    assert run.advance(model[0]) is None
    assert run.ended
    assert not [module for module in model.modules() if module._forward_pre_hooks]


def test_what_a_quantiser_gives_does_not_wait():
    model, x = network(), torch.randn(4, 3)
    quantizer = ActivationFakeQuantize(4)
    quantizer(x)
    attach_input_fake_quantize(model[2], quantizer.eval())
    run = PausedRun(model, x)
    run.advance(model[0])
    with torch.no_grad():
        read = model[:2](x)
    assert torch.equal(run.advance(model[2]), quantizer(read))
    assert run.held.in_use == read.nbytes
    assert run.advance(model[2]) is None
    assert not quantizer._forward_pre_hooks


def test_a_closed_run_ends_where_it_is():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(99, 1))
    run = PausedRun(model, torch.ones(2, 3))
    run.advance(model[0])
    run.close()
    assert run.ended
    PausedRun(model, torch.ones(2, 3)).close()
    assert threading.active_count() == 1 or "paused run" not in {thread.name for thread in threading.enumerate()}


def test_an_error_of_the_network_arrives():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(99, 1), nn.Linear(1, 1))
    run = PausedRun(model, torch.ones(2, 3))
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        run.advance(model[2])
    assert run.ended
