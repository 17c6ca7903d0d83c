"""torch's fake-quantise operators: arguments of each, run without observing."""

import pytest
import torch

from micronet_cli.torch_internals import TorchDispatchMode, operator_name
from micronet_cli.trace.fake_quantizers import FAKE_QUANTIZERS, FakeQuantizing, run_fake_quantizer

ONE = torch.tensor([1.0])
ON = torch.tensor([1])
OFF = torch.tensor([0])


def fused(x, enabled, per_channel=False, channels=1):
    ranges = [torch.full((channels,), end) for end in (-1.0, 1.0)]
    scale = torch.full((channels,), 0.5)
    zero_point = torch.zeros(channels, dtype=torch.int32)
    return torch.fused_moving_avg_obs_fake_quant(
        x, ON, enabled, *ranges, scale, zero_point, 0.01, -8, 7, 0, per_channel, True
    )


# Name -> (call, bits, axis, enabled).
CALLS = {
    "numbers": (lambda x: torch.fake_quantize_per_tensor_affine(x, 0.5, 1, 0, 15), 4, None, True),
    "tensors": (
        lambda x: torch.fake_quantize_per_tensor_affine(x, ONE * 0.5, ONE.int(), 0, 255),
        8,
        None,
        True,
    ),
    "channels": (
        lambda x: torch.fake_quantize_per_channel_affine(x, torch.ones(3), torch.zeros(3).int(), 0, -4, 3),
        3,
        0,
        True,
    ),
    "learnable": (
        lambda x: torch.ops.aten._fake_quantize_learnable_per_tensor_affine(x, ONE, ONE, 0, 15),
        4,
        None,
        True,
    ),
    "learnable channels": (
        lambda x: torch.ops.aten._fake_quantize_learnable_per_channel_affine(
            x, torch.ones(3), torch.zeros(3), 0, -2, 1
        ),
        2,
        0,
        True,
    ),
    "fused": (lambda x: fused(x, ON), 4, None, True),
    "fused channels": (lambda x: fused(x, ON, per_channel=True, channels=3), 4, 0, True),
    "fused, off": (lambda x: fused(x, OFF), 4, None, False),
}


class Calls(TorchDispatchMode):
    """Notes the fake-quantise operators, and runs them as the tracer does."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kind = operator_name(func)
        if kind not in FAKE_QUANTIZERS:
            return func(*args, **(kwargs or {}))
        self.seen.append(FakeQuantizing.of(kind, args))
        return run_fake_quantizer(func, kind, args)


@pytest.mark.parametrize("name", CALLS)
def test_arguments_are_read_and_values_are_torchs(name):
    call, bits, axis, enabled = CALLS[name]
    torch.manual_seed(0)
    x = torch.randn(3, 5) * 3
    with Calls() as calls:
        out = call(x)
    (seen,) = calls.seen
    assert (seen.bits, seen.axis, seen.enabled) == (bits, axis, enabled)
    if "fused" not in name:
        assert torch.equal(out, call(x))
    elif not enabled:
        assert torch.equal(out, x)
    else:
        # With the scale of 0.5 as it is, whatever an observer would make of it.
        assert torch.equal(out, torch.fake_quantize_per_tensor_affine(x, 0.5, 0, -8, 7))


def test_codes_are_counted_from_the_zero_point():
    x = torch.zeros(3, 5)
    assert FakeQuantizing(x, 0.5, torch.tensor([3]), 0, 15).codes == (-3, 12)
    assert FakeQuantizing(x, torch.ones(3), torch.zeros(3), 0, 15, axis=0).codes is None


def test_scales_of_a_weight_have_a_zero_point_where_one_is_not_zero():
    x = torch.zeros(3, 5)
    assert FakeQuantizing(x, torch.ones(3), torch.zeros(3), -8, 7, axis=0).weight_qparams_bits == 3 * 32
    assert FakeQuantizing(x, torch.ones(3), torch.ones(3), -8, 7, axis=0).weight_qparams_bits == 3 * (32 + 4)
    assert FakeQuantizing(x, 0.5, 0, -8, 7).weight_qparams_bits == 32
