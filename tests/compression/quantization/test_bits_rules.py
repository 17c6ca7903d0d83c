"""What rules give their layers: bits that are checked, inherited or null, and the first scheme that is given."""

import pytest
import torch

from micronet_cli.compression.quantization.activation_quantizers import ActivationLSQ, TrackedRange
from micronet_cli.compression.quantization.bits_rules import (
    BitsRule,
    OutputRule,
    Target,
    check_bits,
    first_scheme,
    inherited_bits,
)
from micronet_cli.compression.quantization.weight_quantizers import Binary, RangeLinear


@pytest.mark.parametrize("bits", [None, 1, 1.6, 16])
def test_bits_from_1_to_16_and_null_are_taken(bits):
    check_bits("weight_bits", bits)
    assert BitsRule(".*", weight_bits=bits).weight_bits == bits


@pytest.mark.parametrize("bits", [0.99, 16.1, -1, "4", float("nan")])
@pytest.mark.parametrize(
    ("rule", "name"),
    [
        pytest.param(BitsRule, "weight_bits", id="weight"),
        pytest.param(BitsRule, "activation_bits", id="input"),
        pytest.param(OutputRule, "activation_bits", id="output"),
    ],
)
def test_other_bits_are_refused_by_name(rule, name, bits):
    with pytest.raises(ValueError, match=f"{name}={bits}: must be 1 to 16 bits, or null"):
        rule(".*", **{name: bits})


def test_inherit_takes_the_default_and_null_does_not():
    assert inherited_bits("inherit", 4) == 4
    assert inherited_bits("inherit", None) is None
    assert inherited_bits(None, 4) is None
    assert inherited_bits(2.5, 4) == 2.5


def test_the_first_scheme_is_taken_and_a_class_becomes_an_instance():
    assert first_scheme(None, RangeLinear, Binary()) == RangeLinear()
    given = RangeLinear("per_tensor")
    assert first_scheme(given, Binary) is given


def test_a_target_in_float_has_no_quantisers():
    target = Target("all", None, None, RangeLinear(), TrackedRange())
    assert target.weight_quantizer(torch.ones(1, 1)) is None
    assert target.activation_quantizer() is None


def test_a_target_passes_on_its_bits_and_what_its_schemes_refuse():
    target = Target("all", 2.5, 3, RangeLinear(), ActivationLSQ())
    assert target.weight_quantizer(torch.ones(1, 1)).levels == 5
    assert target.activation_quantizer().levels == 8
    refused = Target("all", 4, 1, Binary(), ActivationLSQ())
    with pytest.raises(ValueError, match="weight_bits=4: binary"):
        refused.weight_quantizer(torch.ones(1, 1))
    with pytest.raises(ValueError, match="activation_bits=1: LSQ needs at least 3 levels"):
        refused.activation_quantizer()
