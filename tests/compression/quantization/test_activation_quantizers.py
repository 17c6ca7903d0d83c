"""Activation schemes: the modules that they make, and what they refuse."""

import pytest
import torch

from micronet_cli.compression.quantization.activation_quantizers import (
    PACT,
    ActivationLSQ,
    ActivationLSQPlus,
    TrackedRange,
)


@pytest.mark.parametrize("decay", [-0.1, 1.0, 2.0])
def test_a_decay_outside_0_to_1_is_refused(decay):
    with pytest.raises(ValueError, match=rf"decay={decay}: must be in \[0, 1\)"):
        TrackedRange(decay)


@pytest.mark.parametrize(
    ("scheme", "what"),
    [
        pytest.param(TrackedRange(symmetric=True), "a symmetric range", id="symmetric"),
        pytest.param(ActivationLSQ(), "LSQ", id="lsq"),
        pytest.param(ActivationLSQPlus(), r"LSQ\+", id="lsq_plus"),
        pytest.param(PACT(), "PACT", id="pact"),
    ],
)
def test_fewer_than_3_levels_are_refused(scheme, what):
    with pytest.raises(ValueError, match=f"activation_bits=1.5: {what} needs at least 3 levels"):
        scheme(1.5)
    assert scheme(1.6).levels == 3


def test_a_tracked_range_has_2_levels_at_1_bit():
    quantizer = TrackedRange(decay=0.0)(1).train()
    assert quantizer(torch.tensor([0.0, 1.0, 4.0])).tolist() == [0, 0, 4]
    # Without decay the last batch alone counts.
    quantizer(torch.tensor([0.0, 2.0]))
    assert quantizer.high == 2


def test_golden_symmetric_ranges_of_signed_and_unsigned_data():
    signed = TrackedRange(symmetric=True)(2).train()
    assert signed(torch.tensor([-2.0, 0.0, 1.5])).tolist() == [-2, 0, 2]
    unsigned = TrackedRange(symmetric=True)(2).train()
    assert unsigned(torch.tensor([0.0, 1.2, 3.0])).tolist() == [0, 1, 3]
