"""KAIST AI's own arithmetic: by hand where it leaves the rules, and its published score from its recipe."""

import pytest
from torch import nn

from micronet_cli.scoring import rule_set, score_with
from micronet_cli.scoring.charges import ACCUMULATE, BIAS_ADD, ELEMENTWISE, MASKS, POOLING, WEIGHTS
from tests.scoring.entries import entry


class Gated(nn.Module):
    """Two 2x2 images of 3 channels, pooled and gated, then a classifier of 3 x 2 weights."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)
        self.linear = nn.Linear(3, 2)

    def forward(self, x):
        x = self.conv(x)
        return self.linear((x + x).mean((2, 3)))


@pytest.fixture(scope="module")
def parts():
    return score_with(Gated(), rule_set("kaist2019"), (3, 2, 2)).parts()


def test_every_weight_has_a_mask_and_sixteen_bits(parts):
    assert parts[WEIGHTS].storage_bits == (9 + 6) * 16
    assert parts[MASKS].storage_bits == 9 + 6


def test_classifier_adds_by_its_density_and_has_no_bias(parts):
    # The convolution: 3 - 1 an output, at 12 outputs. The classifier: 6 products less a third.
    assert parts[ACCUMULATE].additions == 12 * 2 + 6 - 6 / 3
    assert parts[BIAS_ADD].additions == 12


def test_a_mean_adds_all_of_its_values(parts):
    assert (parts[POOLING].multiplications, parts[POOLING].additions) == (3, 12)


def test_sums_are_not_counted(parts):
    assert ELEMENTWISE not in parts


def test_recipe_has_the_published_score():
    """Printed in (revised)Score_MicroNet.ipynb, which sums operations in float32."""
    trace = entry("kaist")
    own = score_with(trace, rule_set("kaist2019")).total
    assert own.storage_params == 108_108.75
    assert own.math_ops == pytest.approx(26_052_109, rel=1e-6)
    assert own.score == pytest.approx(0.0054454020554474585, rel=1e-6)
    official = score_with(trace, rule_set("official", freebie=True)).total
    assert official.score == pytest.approx(own.score, rel=0.01)
