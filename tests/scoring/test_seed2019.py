"""The 2019 entry's own arithmetic, by hand where it differs from the rules."""

import pytest
from torch import nn

from micronet_cli.scoring import rule_set, score


def test_seed2019_charges_a_float_convolution_that_feeds_another():
    model = nn.Sequential(nn.Conv2d(2, 4, 1, bias=False), nn.Conv2d(4, 2, 1, bias=False))
    figures = score(model, (2, 3, 3), "seed2019")
    # 8 weights each; (8 - 1) + 1 additions a position; 3 operations an element of each output.
    assert figures["math_ops"] == 2 * 8 * 9 + 2 * 8 * 9 + 3 * 9 * (4 + 2)


def test_seed2019_refuses_what_its_arithmetic_does_not_know():
    with pytest.raises(ValueError, match="accumulator=integer"):
        rule_set("seed2019", accumulator="integer")
