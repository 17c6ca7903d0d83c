"""What a network is packed into, and what the format cannot hold."""

import copy

import pytest
import torch
from torch import nn

from micronet_cli.artifact import build
from micronet_cli.artifact.compare import compare
from micronet_cli.artifact.entries import Activation, Parameter
from micronet_cli.artifact.format import read
from micronet_cli.artifact.pack import _executed, _pack_activations, _pack_batch_norms, _pack_parameters, pack
from micronet_cli.artifact.packer import Packer
from micronet_cli.functional.fixed_point import unpack_range
from micronet_cli.layers.effective_weight import attach_effective_weight, effective_weight, original_weight
from micronet_cli.layers.fake_quantize import attach_output_fake_quantize
from micronet_cli.layers.integer import IntegerActivation
from micronet_cli.layers.products import attach_operand_fake_quantize
from tests.artifact.networks import NORMS, SCHEMES, W4A4, header, network, packed


def test_structured_zeros_take_the_form_made_for_them(tmp_path):
    forms = {}
    for scheme in ("w4a4", "2:4", "blocks", "filters", "binary"):
        content = pack(network(**SCHEMES[scheme]), header(network(), "resnet8", 16))
        forms[scheme] = {
            tuple(layer["positions"]) if "positions" in layer else () for layer in read(content)[0]["layers"]
        }
    assert ("mask",) in forms["w4a4"]
    assert ("groups", 2, 4) in forms["2:4"]
    assert ("blocks", 4, 4, 1, 1) in forms["blocks"]
    assert any(form[:2] == ("blocks", 1) for form in forms["filters"])
    assert forms["binary"] == {()}  # dense


def test_entropy_coder_takes_eight_percent_off_a_sparse_network():
    model = network("resnet20", **W4A4)
    plain, coded = (len(pack(model, header(model, "resnet20", 16), entropy)) for entropy in (False, True))
    assert coded <= 0.92 * plain


def test_codes_that_do_not_give_the_weight_are_refused():
    model = network(**W4A4)
    quantizer = attach_effective_weight(model.layer1[0].conv1).fake_quantize
    quantizer.forward = lambda weight: weight * 1.01
    with pytest.raises(ValueError, match=r"layer1\.0\.conv1.*codes do not give the effective weight"):
        pack(model, header(model, "resnet8", 16))


def test_network_that_is_not_finite_is_refused():
    model = network(**W4A4)
    with torch.no_grad():
        model.bn1.bias[0] = torch.nan
    with pytest.raises(ValueError, match="not finite"):
        pack(model, header(model, "resnet8", 16))


def test_packing_leaves_the_network_as_it_was():
    model = network(**W4A4)
    before = copy.deepcopy(model.state_dict())
    model.layer1.train()
    pack(model, header(model, "resnet8", 16))
    assert [name for name, module in model.named_children() if module.training] == ["layer1"]
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not any(hook for module in model.modules() for hook in module._forward_hooks.values())


def test_network_with_too_few_bytes_for_its_size_is_stored_in_a_larger_form(tmp_path, monkeypatch):
    model = network(**SCHEMES["filters"])
    small = pack(model, header(model, "resnet8", 16), entropy=True)
    elements = sum(p.numel() for p in model.parameters())
    monkeypatch.setattr(build, "FREE_ELEMENTS", 0)
    monkeypatch.setattr(build, "MAX_ELEMENTS_A_BYTE", (elements - 1) / len(small))
    loaded = packed(tmp_path / "n.mnet", model, entropy=True)
    found, _ = read((tmp_path / "n.mnet").read_bytes())
    assert {tuple(layer["positions"]) for layer in found["layers"]} == {("mask",)}
    assert not found["coded"]
    assert compare(model, loaded, torch.randn(1, 3, 16, 16), torch.float64).differing_codes == 0


def test_quantiser_in_another_place_is_refused():
    model = network(**W4A4)
    model.layer1[0].extra = IntegerActivation(4, 1.0, 0)
    with pytest.raises(ValueError, match=r"layer1\.0\.extra: quantisers are packed where they are a layer's input"):
        pack(model, header(model, "resnet8", 16))


BAD_RANGES = {
    "above 0": (1.0, 1),
    "code of 0 beyond 16 bits": (1.0, -(1 << 16)),
    "scale 0": (0.0, 0),
    "scale below 0": (-1.0, 0),
    "scale not finite": (float("inf"), 0),
    "scale not a number": (float("nan"), 0),
}


@pytest.mark.parametrize("case", BAD_RANGES)
def test_range_without_zero_is_refused(case):
    scale, zero_point = BAD_RANGES[case]
    model = nn.Sequential(nn.ReLU())
    attach_output_fake_quantize(model[0], IntegerActivation(4, scale, zero_point))
    with pytest.raises(ValueError, match=r"0\.output_fake_quantize: scale .* are not those of a range with 0 in it"):
        _pack_activations(model, Packer(entropy=False))


def test_range_is_stored_with_its_place_and_bits():
    model = nn.Sequential(nn.ReLU())
    attach_output_fake_quantize(model[0], IntegerActivation(2.5, 4.0, -3))
    packer = Packer(entropy=False)
    assert _pack_activations(model, packer) == [Activation("0", "output", 2.5)]
    (content,) = packer.streams["activations"]
    assert unpack_range(content) == (4.0, -3)


def test_range_of_an_operand_is_stored_with_its_number():
    model = nn.Sequential(nn.Sequential(nn.ReLU()))
    attach_operand_fake_quantize(model[0][0], 3, IntegerActivation(8, 4.0, 0))
    assert _pack_activations(model, Packer(entropy=False)) == [Activation("0.0", "operand3", 8)]


def test_norm_that_is_not_finite_is_refused_by_name():
    model = nn.Sequential(nn.BatchNorm1d(1)).double().eval()
    model[0].running_mean.fill_(float("inf"))
    with pytest.raises(ValueError, match="0: its gain or shift is not finite"):
        _pack_batch_norms(model, Packer(entropy=False))


def test_norm_without_statistics_is_left_to_the_parameters():
    model = nn.Sequential(nn.BatchNorm1d(1, track_running_stats=False))
    assert _pack_batch_norms(model, Packer(entropy=False)) == []


def test_parameters_keep_their_type_and_batches_are_not_counted():
    model = nn.Sequential(nn.BatchNorm1d(1)).double()
    model.register_buffer("flags", torch.tensor([True, False]))
    model.register_buffer("index", torch.tensor([3]))
    packer = Packer(entropy=False)
    found = _pack_parameters(model, packer, {"0.weight", "0.bias", "0.running_mean"})
    assert found == [Parameter("flags", [2], "bool"), Parameter("index", [1], "int64"), Parameter("0.running_var", [1])]
    assert [len(part) for part in packer.streams["parameters"]] == [2, 8, 4]


class WeightReader(nn.Module):
    """Runs one layer, and reads the weight of another."""

    def __init__(self):
        super().__init__()
        self.run = nn.Linear(4, 4)
        self.read = nn.Linear(4, 4)

    def forward(self, x):
        return nn.functional.linear(self.run(x.flatten(1)), self.read.weight)


def test_layer_whose_weight_another_module_reads_is_not_executed():
    assert _executed(WeightReader(), (1, 2, 2)) == {"run"}


@pytest.mark.parametrize("scheme", ["float", "w4a4"])
def test_standardised_weights_are_stored_as_a_product_sees_them(tmp_path, scheme):
    model = network("test_nfnet", side=32, **SCHEMES[scheme])
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        loaded = packed(tmp_path / "model.mnet", model, "test_nfnet", 32)
        assert torch.allclose(loaded(images), model(images), atol=1e-6)
    content = (tmp_path / "model.mnet").read_bytes()
    names = read(content)[0]["standardized"]
    assert "stages.0.0.conv2" in names
    assert "stem.conv1" not in names  # float and dense: as the architecture has it


OF_PARAMETRISED_WEIGHTS = {
    "plain": {"sparsity": None},
    "inputs only": {"sparsity": None, "weight_bits": None, "activation_bits": 4},
    "w4a4": W4A4,
}


@pytest.mark.parametrize("scheme", OF_PARAMETRISED_WEIGHTS)
@pytest.mark.parametrize("name", ["resnet8", *NORMS])
def test_weights_are_stored_as_parametrisations_make_them(tmp_path, name, scheme):
    model = network(name, **OF_PARAMETRISED_WEIGHTS[scheme])
    images = torch.randn(4, 3, 16, 16)
    with torch.no_grad():
        loaded = packed(tmp_path / "model.mnet", model, name)
        logits = loaded.double()(images.double())
        assert torch.allclose(logits, model.double()(images.double()), atol=1e-5)
    names = read((tmp_path / "model.mnet").read_bytes())[0].get("standardized", [])
    assert names == (["0", "3", "7"] if name in NORMS else [])


def with_ties():
    """A network with a weight and a range next to a tie: in float64 they would have other codes."""
    model = network(**W4A4, sparsity=None)
    row = torch.zeros(64)
    row[:2] = torch.tensor([0.3, 0.07])  # 15 and 3.5 steps
    with torch.no_grad():
        original_weight(model.linear)[0] = row
    model.linear.input_fake_quantize.low.fill_(-0.06)  # -1.5 steps
    model.linear.input_fake_quantize.high.fill_(0.54)
    return model


def test_file_holds_the_codes_that_the_network_executes(tmp_path):
    model = with_ties()
    loaded = packed(tmp_path / "n.mnet", model)
    executed = effective_weight(model.linear)
    scale, _ = executed.qparams(original_weight(model.linear))
    codes = torch.round(model.linear.weight * scale)
    assert codes[0, :2].tolist() == [15, 4]
    assert torch.equal(loaded.linear.weight, codes)
    assert loaded.linear.input_fake_quantize.zero_point == -2
    double = model.double()
    assert torch.round(double.linear.weight * scale)[0, 1] == 3
    assert double.linear.input_fake_quantize.qparams()[1] == -1


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_comparison_is_of_the_codes_that_the_network_executes(tmp_path, dtype):
    model = with_ties()
    loaded = packed(tmp_path / "n.mnet", model)
    found = compare(model, loaded, torch.randn(2, 3, 16, 16), dtype, alone=True)
    assert found.differing_codes == 0
    assert found.logit_error < 1e-6


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_networks_of_other_precisions_are_packed(tmp_path, dtype):
    model = network(**W4A4).to(dtype)
    loaded = packed(tmp_path / "n.mnet", model)
    assert compare(model, loaded, torch.randn(2, 3, 16, 16), torch.float64).differing_codes == 0
