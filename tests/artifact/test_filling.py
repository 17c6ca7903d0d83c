"""Entries fill the layers they fit, and every number and name that does not fit is refused with its place."""

import numpy as np
import pytest
import torch
from torch import nn

from micronet_cli.artifact.entries import Activation, Layer, Parameter
from micronet_cli.artifact.filling import attach_range, fill_batch_norms, fill_layer, fill_parameters
from micronet_cli.artifact.format import STREAMS, Damaged
from micronet_cli.artifact.streams import Streams
from micronet_cli.functional.fixed_point import pack_range
from micronet_cli.layers.products import operand_fake_quantizers


def streams(**parts):
    return Streams.of({name: parts.get(name, b"") for name in STREAMS}, {})


def floats(*values):
    return np.array(values, "<f4").tobytes()


def integers(*values):
    return np.array(values, "<i4").tobytes()


NAN, INFINITY = float("nan"), float("inf")


def test_float_layer_takes_its_values_under_its_mask():
    layer = nn.Linear(4, 2, bias=False)
    given = streams(masks=b"\x81", parameters=floats(1.5, -2.0))
    assert fill_layer(layer, Layer("a", ("mask",), masked=True), given) == {"a.weight"}
    given.close()
    assert layer.weight.tolist() == [[1.5, 0, 0, 0], [0, 0, 0, -2.0]]
    assert layer.parametrizations.weight[0].mask.tolist() == [[True, False, False, False], [False, False, False, True]]


def test_folded_float_layer_is_rescaled_and_its_bias_filled():
    layer = nn.Linear(1, 2)
    given = streams(parameters=floats(1.0, 2.0), scales=floats(3.0, -0.5) + integers(1, -2))
    entry = Layer("a", scales=2, bias_exponent=-1)
    assert fill_layer(layer, entry, given) == {"a.weight", "a.bias"}
    given.close()
    with torch.no_grad():
        assert layer(torch.ones(1, 1)).tolist() == [[3.0 + 0.5, -1.0 - 1.0]]


def test_integer_layer_without_rescale_computes_with_real_values():
    layer = nn.Linear(2, 1, bias=False)
    entry = Layer("a", bits=2, levels=4, zeros=True, zero_code=1, scales=1, scale_exponent=-1)
    given = streams(codes=b"\x0d", scales=integers(1))  # digits 1 and 3: integers 1 and -1
    fill_layer(layer, entry, given)
    given.close()
    assert layer.weight.tolist() == [[0.5, -0.5]]


class StandardisedLinear(nn.Linear):
    """A layer with a forward of its own, which no rescale can follow."""

    def forward(self, x):
        return super().forward(x) * 2


BAD_LAYERS = {
    "scales of another number": (Layer("a", scales=3), {}, "layer 'a': scales do not fit its channels"),
    "codes without scale": (Layer("a", bits=2, levels=4), {}, "layer 'a': codes without scale"),
    "weight": (Layer("a"), {"parameters": floats(1, NAN)}, "layer 'a': not finite"),
    "scale": (
        Layer("a", scales=2), {"parameters": floats(1, 2), "scales": floats(1, INFINITY)}, "layer 'a': not finite",
    ),
    "mask cut off": (Layer("a", ("mask",)), {}, "stream masks ends too early"),
    "values cut off": (Layer("a"), {"parameters": floats(1)}, "stream parameters ends too early"),
    "groups": (Layer("a", ("groups", 1, 2)), {}, "groups do not divide"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_LAYERS)
def test_entry_that_does_not_fit_its_layer_is_refused(case):
    entry, parts, message = BAD_LAYERS[case]
    with pytest.raises(Damaged, match=message):
        fill_layer(nn.Linear(1, 2), entry, streams(**parts))


def test_layer_with_another_product_cannot_be_rescaled():
    with pytest.raises(Damaged, match="layer 'a' cannot be rescaled"):
        fill_layer(StandardisedLinear(1, 2), Layer("a", scales=2), streams())


def test_batch_norm_takes_a_gain_and_a_shift():
    norm = nn.BatchNorm1d(2).eval()
    given = streams(scales=floats(2, -1, 0.5, 0))
    filled = fill_batch_norms({"n": norm}, ["n"], given)
    assert filled == {"n.weight", "n.bias", "n.running_mean", "n.running_var"}
    with torch.no_grad():
        assert norm(torch.tensor([[1.0, 3.0]])).tolist() == [[2.5, -3.0]]


BAD_NORMS = {
    "unknown": (["m"], b"", "batch_norms: 'm' is none"),
    "a layer": (["l"], b"", "batch_norms: 'l' is none"),
    "without statistics": (["u"], b"", "batch_norms: 'u' is none"),
    "not finite": (["n"], floats(1, NAN), "batch_norms: 'n' is not finite"),
    "cut off": (["n"], floats(1), "stream scales ends too early"),
}


@pytest.mark.parametrize("case", BAD_NORMS)
def test_batch_norms_that_do_not_fit_are_refused(case):
    names, scales, message = BAD_NORMS[case]
    untracked = nn.BatchNorm1d(1, track_running_stats=False)
    modules = {"n": nn.BatchNorm1d(1), "l": nn.Linear(1, 1), "u": untracked}
    with pytest.raises(Damaged, match=message):
        fill_batch_norms(modules, names, streams(scales=scales))


def fill(model, entries, filled=(), **parts):
    names = set(filled)
    given = streams(**parts)
    fill_parameters(model, dict(model.named_modules()), entries, names, given)
    given.close()
    return names


def test_parameters_are_filled_and_batches_need_no_count():
    model = nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1))
    norm = ("1.weight", "1.bias", "1.running_mean", "1.running_var")
    entries = [Parameter("0.weight", [1, 1]), Parameter("0.bias", [1])]
    filled = fill(model, entries, norm, parameters=floats(2, -1))
    assert filled == {"0.weight", "0.bias", *norm}
    assert (model[0].weight.item(), model[0].bias.item()) == (2.0, -1.0)


def test_bias_that_the_architecture_lacks_is_added():
    model = nn.Sequential(nn.Linear(1, 2, bias=False))
    fill(model, [Parameter("0.bias", [2])], ["0.weight"], parameters=floats(3, 4))
    assert model[0].bias.tolist() == [3.0, 4.0]


BAD_PARAMETERS = {
    "not finite": ([Parameter("0.bias", [2])], ["0.weight"], floats(1, INFINITY), "'0.bias': not finite"),
    "unknown": ([Parameter("0.gain", [1])], ["0.weight"], floats(1), "'0.gain': the network has none of this name"),
    "filled already": ([Parameter("0.weight", [2, 1])], ["0.weight"], floats(1, 2), "has none of this name"),
    "shape": ([Parameter("0.weight", [1, 2])], [], floats(1, 2), "'0.weight': another shape or type"),
    "type": ([Parameter("0.weight", [2, 1], "bool")], [], b"\0\1", "'0.weight': another shape or type"),
    "shape of a new bias": ([Parameter("0.bias", [1])], ["0.weight"], floats(1), "another shape than the network's"),
    "missing": ([], [], b"", "1 tensors of the network are missing, 0.weight among them"),
}


@pytest.mark.parametrize("case", BAD_PARAMETERS)
def test_parameters_that_do_not_fit_are_refused(case):
    entries, filled, content, message = BAD_PARAMETERS[case]
    with pytest.raises(Damaged, match=message):
        fill(nn.Sequential(nn.Linear(1, 2, bias=False)), entries, filled, parameters=content)


@pytest.mark.parametrize("place", ["input", "output"])
def test_range_is_attached_in_its_place(place):
    model = nn.Sequential(nn.Linear(1, 1))
    given = streams(activations=pack_range(2.0, -1))
    attach_range({"0": model[0]}, Activation("0", place, 2), given)
    given.close()
    quantizer = getattr(model[0], f"{place}_fake_quantize")
    assert (quantizer.bits, quantizer.scale, quantizer.zero_point) == (2, 2.0, -1)
    assert quantizer.codes == (-1, 2)


BAD_RANGES = {
    "unknown module": ("1", pack_range(1.0, 0), "activations: '1': the network has no such module"),
    "no zero in it": ("0", pack_range(1.0, -4), "activations: '0': a bad range"),
    "scale 0": ("0", bytes(8), "activations: '0': a bad range"),
    "scale below 0": ("0", pack_range(-1.0, 0), "activations: '0': a bad range"),
    "scale not finite": ("0", b"\0\0" + b"\xff" * 6, "activations: '0': a bad range"),
    "cut off": ("0", bytes(7), "stream activations ends too early"),
}


@pytest.mark.parametrize("case", BAD_RANGES)
def test_range_that_does_not_fit_is_refused(case):
    module, content, message = BAD_RANGES[case]
    with pytest.raises(Damaged, match=message):
        attach_range({"0": nn.Linear(1, 1)}, Activation(module, "input", 2), streams(activations=content))


def test_range_of_an_operand_is_attached_by_its_number():
    model = nn.Sequential(nn.ReLU())
    attach_range({"0": model[0]}, Activation("0", "operand3", 2), streams(activations=pack_range(2.0, -1)))
    (number, quantizer) = operand_fake_quantizers(model[0]).popitem()
    assert (number, quantizer.bits, quantizer.scale, quantizer.zero_point) == (3, 2, 2.0, -1)
