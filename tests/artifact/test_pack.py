"""What a network is packed into, and what the format cannot hold."""

import copy

import pytest
import torch

from micronet_cli.artifact import build
from micronet_cli.artifact.compare import compare
from micronet_cli.artifact.format import read
from micronet_cli.artifact.pack import pack
from micronet_cli.layers.effective_weight import attach_effective_weight
from tests.artifact.networks import SCHEMES, W4A4, header, network, packed


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
