"""Every field of a header's entries is checked, with a message that says where."""

import pytest

from micronet_cli.artifact.entries import Activation, Layer, Parameter, check, parse
from micronet_cli.artifact.format import Damaged

BAD_LAYERS = {
    "name": ({"name": 3}, "name must be a string"),
    "flag": ({"masked": 1}, "masked must be true or false"),
    "no positions": ({"positions": []}, "unknown positions"),
    "positions are text": ({"positions": "all"}, "unknown positions"),
    "all with a size": ({"positions": ["all", 1]}, "unknown positions"),
    "full groups": ({"positions": ["groups", 4, 4]}, "unknown positions"),
    "groups of three": ({"positions": ["groups", 1, 3]}, "unknown positions"),
    "blocks of nothing": ({"positions": ["blocks", 0]}, "unknown positions"),
    "nine dimensions": ({"positions": ["blocks", *[1] * 9]}, "unknown positions"),
    "bits": ({"bits": 17}, r"bits must be a number in \[1, 16\]"),
    "one level": ({"levels": 1}, "levels must be in 2 to 65536"),
    "bool levels": ({"levels": True}, "levels must be in 2 to 65536"),
    "levels beyond bits": ({"bits": 2, "levels": 6}, "more levels than its bits give"),
    "zero_code": ({"levels": 4, "zero_code": 4}, "zero_code beyond the levels"),
    "negative scales": ({"scales": -1}, "scales must be a count"),
    "no scale": ({"bits": 4, "integer": True}, "integers without scale"),
    "float integers": ({"integer": True, "scales": 1}, "integers without scale"),
    "exponent": ({"scales": 1, "scale_exponent": 128}, "a bad exponent"),
    "lonely bias": ({"bias_exponent": -30}, "a bias without rescale"),
}
BAD_PARAMETERS = {
    "name": ((None, [1]), "name must be a string"),
    "shape is a number": (("a", 3), "not a shape"),
    "nine dimensions": (("a", [1] * 9), "not a shape"),
    "negative size": (("a", [-1]), "not a shape"),
    "hidden by a zero": (("a", [0, 1 << 40, 1 << 40]), "too large a shape"),
    "dtype": (("a", [1], "float16"), "dtype 'float16' is not known"),
}
BAD_ACTIVATIONS = {
    "module": ((1, "input", 4), "a module's name must be a string"),
    "place": (("a", "inside", 4), "place 'inside' must be input, output or operand<number>"),
    "place is no text": (("a", 3, 4), "place 3 must be input"),
    "no operand": (("a", "operand", 4), "place 'operand' must be input"),
    "far operand": (("a", "operand1000", 4), "place 'operand1000' must be input"),
    "bits": (("a", "input", 0), r"bits must be in \[1, 16\]"),
}


@pytest.mark.parametrize("case", BAD_LAYERS)
def test_layer_with_a_bad_field_is_refused(case):
    fields, message = BAD_LAYERS[case]
    with pytest.raises(Damaged, match=message):
        Layer(**({"name": "a"} | fields))


@pytest.mark.parametrize("case", BAD_PARAMETERS)
def test_parameter_with_a_bad_field_is_refused(case):
    fields, message = BAD_PARAMETERS[case]
    with pytest.raises(Damaged, match=message):
        Parameter(*fields)


@pytest.mark.parametrize("case", BAD_ACTIVATIONS)
def test_activation_with_a_bad_field_is_refused(case):
    fields, message = BAD_ACTIVATIONS[case]
    with pytest.raises(Damaged, match=message):
        Activation(*fields)


def test_scalar_and_empty_parameters_are_shapes():
    assert Parameter("a", []).shape == []
    assert Parameter("a", [0]).shape == [0]


def test_layer_without_stored_zeros_has_one_digit_fewer():
    assert Layer("a", bits=2, levels=4).base == 3
    assert Layer("a", bits=2, levels=4, zeros=True).base == 4


def test_layer_is_rescaled_behind_integers_and_behind_a_folded_float_weight():
    assert Layer("a", bits=4, integer=True, scales=1).rescaled
    assert Layer("a", scales=8).rescaled
    assert not Layer("a", bits=4, scales=1).rescaled
    assert not Layer("a").rescaled


def test_layer_comes_back_from_its_json():
    layer = Layer("a", ("groups", 2, 4), bits=2.5, levels=5, integer=True, scales=3, bias_exponent=-30)
    assert parse(Layer, [layer.to_json()], "layers") == [layer]


def test_entries_leave_out_what_is_the_default():
    assert Layer("a").to_json() == {"name": "a"}
    told = Layer("a", bits=4, levels=16, zero_code=0).to_json()
    assert told == {"name": "a", "bits": 4, "levels": 16, "zero_code": 0}


def test_parse_refuses_foreign_fields_other_types_and_names_twice():
    with pytest.raises(Damaged, match="layers: must be a list"):
        parse(Layer, {}, "layers")
    with pytest.raises(Damaged, match="layers: an entry has other fields than Layer"):
        parse(Layer, [{"name": "a", "code": "x"}], "layers")
    with pytest.raises(Damaged, match="an entry has other fields than Activation"):
        parse(Activation, [3], "activations")
    with pytest.raises(Damaged, match="layers: a name comes twice"):
        parse(Layer, [{"name": "a"}, {"name": "a"}], "layers")


def test_a_module_may_have_a_quantiser_at_either_side_but_not_two_at_one():
    assert len(parse(Activation, [["a", "input", 4], ["a", "output", 4]], "activations")) == 2
    with pytest.raises(Damaged, match="a name comes twice"):
        parse(Activation, [["a", "input", 4], ["a", "input", 8]], "activations")


def test_check_says_that_the_header_is_wrong():
    check(True, "nothing")
    with pytest.raises(Damaged, match=r"^header: something$"):
        check(False, "something")


def test_operands_have_a_number():
    assert Activation("a", "operand12", 4).operand == 12
    assert Activation("a", "input", 4).operand is None
