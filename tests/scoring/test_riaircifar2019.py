"""RIAIR's arithmetic for CIFAR-100: by hand where it leaves the other one, and the published scores from the recipe."""

import pytest

from micronet_cli.scoring import score_with
from micronet_cli.scoring.charges import BIAS_ADD, BIASES, NON_LINEARITY, POOLING, SCALES
from micronet_cli.scoring.riaircifar2019 import Riaircifar2019
from tests.scoring.entries import entry
from tests.scoring.test_riair2019 import parts


def test_cifar_stores_one_scale_and_one_bias_a_layer():
    stored = parts(Riaircifar2019(), "quantize")
    assert (stored[SCALES].storage_bits, stored[BIASES].storage_bits) == (16, 16)
    assert BIASES not in parts(Riaircifar2019(), "quantize", bias=False)


def test_cifar_has_no_relu_before_a_quantiser():
    assert NON_LINEARITY not in parts(Riaircifar2019(), "relu", "quantize")
    assert parts(Riaircifar2019(), "relu", "mean")[NON_LINEARITY].math_ops == 6 / 2


def test_cifar_counts_additions_of_biases_and_pools_as_told():
    entered = parts(Riaircifar2019(), "mean", "quantize")
    ranked = parts(Riaircifar2019(nonlinearity_bits=32), "mean", "quantize")
    assert (entered[POOLING].math_ops, ranked[POOLING].math_ops) == (6 / 2, 5 + 1 / 2)
    assert (entered[BIAS_ADD].math_ops, ranked[BIAS_ADD].math_ops) == (1, 2)


def test_cifar_knows_two_accumulators():
    with pytest.raises(ValueError, match="accumulator=int16"):
        Riaircifar2019(accumulator="int16")


# Score.md of branch cifar100: types 0, 4 and 2; storage and operations.
CIFAR = [
    ({}, 0.001365, 0.002805),
    ({"nonlinearity_bits": 32}, 0.001365, 0.003010),
    ({"nonlinearity_bits": 32, "accumulator": "fp32"}, 0.001365, 0.007179),
]


@pytest.mark.slow
@pytest.mark.parametrize(("options", "storage", "operations"), CIFAR, ids=["type 0", "type 4", "type 2"])
def test_cifar_recipe_has_the_published_score(options, storage, operations):
    own = score_with(entry("riair_densenet"), Riaircifar2019(**options)).total
    assert own.storage_score == pytest.approx(storage, rel=1e-3)
    assert own.math_score == pytest.approx(operations, rel=0.01)
