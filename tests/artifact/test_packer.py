"""The packer's streams: codes, floats and scales in the order of the layers, each in its narrowest form."""

import numpy as np
import pytest

from micronet_cli.artifact.entries import Layer
from micronet_cli.artifact.format import STREAMS
from micronet_cli.artifact.packer import SCALE_SPREAD, Packer


def test_new_packer_has_every_stream_empty_and_shares_none():
    packer = Packer(entropy=False)
    assert packer.streams == {name: [] for name in STREAMS}
    packer.append("scales", np.ones(1), "<f4")
    assert Packer(entropy=False).streams["scales"] == []


SPREADS = {
    "one scale": ([3.0], True),
    "equal scales": ([2.0, 2.0], True),
    "spread of 2^16": ([1.0, float(SCALE_SPREAD)], True),
    "spread beyond 2^16": ([1.0, float(SCALE_SPREAD) + 1], False),
    "signs do not count": ([-1.0, float(SCALE_SPREAD)], True),
    "zeros do not count": ([0.0, 1.0], True),
    "zeros alone": ([0.0, 0.0], True),
}


@pytest.mark.parametrize("case", SPREADS)
def test_scales_of_a_small_spread_share_an_exponent(case):
    scales, shares = SPREADS[case]
    packer = Packer(entropy=False)
    fields = packer.numbers(np.array(scales), None)
    assert fields["scales"] == len(scales)
    assert ("scale_exponent" in fields) == shares
    (content,) = packer.streams["scales"]
    if shares:
        found = np.ldexp(np.frombuffer(content, "<i4").astype(float), fields["scale_exponent"])
    else:
        found = np.frombuffer(content, "<f4")
    assert found.tolist() == scales


def test_bias_is_stored_behind_the_scales():
    packer = Packer(entropy=False)
    fields = packer.numbers(np.array([1.0, 2.0]), np.array([0.5, -0.25]))
    assert sorted(fields) == ["bias_exponent", "scale_exponent", "scales"]
    scales, bias = (np.frombuffer(part, "<i4") for part in packer.streams["scales"])
    assert np.ldexp(scales.astype(float), fields["scale_exponent"]).tolist() == [1.0, 2.0]
    assert np.ldexp(bias.astype(float), fields["bias_exponent"]).tolist() == [0.5, -0.25]


def test_layer_without_numbers_has_no_fields_for_them():
    packer = Packer(entropy=False)
    assert packer.numbers(None, None) == {}
    assert packer.streams["scales"] == []


def test_dense_codes_leave_out_zero_and_need_no_mask():
    packer = Packer(entropy=False)
    entry = packer.codes(Layer("a", bits=2, levels=4, zero_code=0), np.array([[1, 2], [3, 1]]), np.array([0]))
    assert entry.positions == ("all",)
    assert not entry.zeros
    assert entry.base == 3
    assert packer.streams["masks"] == [b""]


def test_dense_codes_with_a_zero_among_them_say_so():
    packer = Packer(entropy=False)
    entry = packer.codes(Layer("a", bits=2, levels=4, zero_code=0), np.array([[1, 2], [3, 0]]), np.array([0]))
    assert entry.zeros == (entry.positions == ("all",))


def test_weight_of_zeros_has_no_code_and_comes_under_a_cheap_mask():
    packer = Packer(entropy=False)
    entry = packer.codes(Layer("a", bits=4, levels=16, zero_code=0), np.zeros((16, 16), int), np.array([0]))
    assert entry.positions != ("all",)
    assert b"".join(packer.streams["codes"]) == b""


def test_codes_of_zero_are_stored_only_where_they_differ():
    integers = np.array([[-1, 1], [1, 2]])
    packer = Packer(entropy=True)
    packer.codes(Layer("a", bits=2, levels=4, zero_code=1), integers, np.array([1]))
    assert packer.streams["offsets"] == []
    packer.codes(Layer("b", bits=2, levels=4), integers, np.array([1, 0]))
    assert len(packer.streams["offsets"]) == 1


def test_plain_packer_takes_a_mask_whatever_is_smaller():
    weight = np.ones((8, 8))
    packer = Packer(entropy=False, plain=True)
    entry = packer.floats(Layer("a"), weight)
    assert entry.positions == ("mask",)
    assert packer.streams["masks"] == [b"\xff" * 8]
    assert Packer(entropy=False).floats(Layer("a"), weight).positions == ("all",)


def test_floats_are_stored_in_float32_without_the_zeros():
    weight = np.zeros((8, 8))
    weight[0, 0], weight[5, 3] = 1.5, -2.0
    packer = Packer(entropy=False, plain=True)
    packer.floats(Layer("a"), weight)
    (content,) = packer.streams["parameters"]
    assert np.frombuffer(content, "<f4").tolist() == [1.5, -2.0]


def test_appended_numbers_are_little_endian():
    packer = Packer(entropy=False)
    packer.append("scales", np.array([1.0, -2.0]), "<f4")
    packer.append("scales", np.array([1]), "<i4")
    assert [part.hex() for part in packer.streams["scales"]] == ["0000803f000000c0", "01000000"]
