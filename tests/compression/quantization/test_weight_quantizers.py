"""Weight schemes: what they refuse, and zeros that survive every scheme with a level for them."""

import pytest
import torch

from micronet_cli.compression.quantization.quantizer import BitsRule, Quantizer
from micronet_cli.compression.quantization.weight_quantizers import (
    AccumulatorAware,
    Binary,
    DoReFa,
    RangeLinear,
    Ternary,
    WeightLSQ,
    WeightLSQPlus,
)

WITH_ZERO = {
    "range": (RangeLinear(), 4),
    "range_tensor": (RangeLinear("per_tensor"), 2.5),
    "symmetric": (RangeLinear(symmetric=True), 4),
    "lsq": (WeightLSQ(), 3),
    "lsq_plus": (WeightLSQPlus("per_tensor"), 4),
    "a2q": (AccumulatorAware(12, 4), 4),
    "dorefa": (DoReFa(), 2),
    "ternary": (Ternary(), 1.6),
}
every_scheme = pytest.mark.parametrize("name", sorted(WITH_ZERO))


@every_scheme
@pytest.mark.parametrize("shape", [(4, 5), (4, 2, 3, 3), (1, 1)], ids=str)
def test_zeros_survive(name, shape):
    scheme, bits = WITH_ZERO[name]
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    weight.view(-1)[::2] = 0
    quantizer = scheme(bits, weight)
    assert (quantizer(weight)[weight == 0] == 0).all()
    assert quantizer.has_zero


@every_scheme
def test_weights_of_zeros_stay_so(name):
    scheme, bits = WITH_ZERO[name]
    weight = torch.zeros(2, 3)
    assert not scheme(bits, weight)(weight).any()


@pytest.mark.parametrize(
    ("scheme", "bits", "said"),
    [
        pytest.param(RangeLinear(symmetric=True), 1, "a symmetric range needs at least 3", id="symmetric"),
        pytest.param(WeightLSQ(), 1.5, "LSQ needs at least 3", id="lsq"),
        pytest.param(WeightLSQPlus(), 1, r"LSQ\+ needs at least 3", id="lsq_plus"),
        pytest.param(AccumulatorAware(8, 4), 1, "accumulator_bits needs at least 3", id="a2q"),
        pytest.param(DoReFa(), 1, "DoReFa needs at least 3", id="dorefa"),
        pytest.param(Binary(), 1.6, "binary weights have 2 levels", id="binary"),
        pytest.param(Ternary(), 1, "ternary weights have 3 levels", id="ternary"),
    ],
)
def test_too_few_or_too_many_levels_are_refused(scheme, bits, said):
    with pytest.raises(ValueError, match=rf"weight_bits={bits}: {said}"):
        scheme(bits, torch.ones(1, 1))


def test_the_narrowest_accumulator_holds_one_product():
    assert AccumulatorAware(5, 4)(4, torch.ones(1, 1)).limit == 1
    with pytest.raises(ValueError, match="activation_bits=4: one product does not fit accumulator_bits=4"):
        AccumulatorAware(4, 4)(4, torch.ones(1, 1))


@pytest.mark.parametrize("bits", [0, 1, 33])
def test_accumulators_outside_2_to_32_are_refused(bits):
    with pytest.raises(ValueError, match=f"accumulator_bits={bits}: must be 2 to 32"):
        Quantizer({"all": BitsRule(".*")}, accumulator_bits=bits)
