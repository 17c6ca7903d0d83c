"""Weights files: what is read is what was saved, and a broken file is one error."""

import pytest
import torch
from safetensors.torch import save_file

from micronet_cli.errors import UserError
from micronet_cli.models.model import Model
from micronet_cli.models.weights_file import load_strict, read_weights


@pytest.mark.parametrize("suffix", ["safetensors", "pth", "pth.tar"])
def test_weights_round_trip(tmp_path, suffix):
    source = Model("resnet8").build(7)
    path = tmp_path / f"w.{suffix}"
    if suffix == "safetensors":
        save_file(source.state_dict(), path)
    else:
        torch.save({"state_dict": {f"module.{k}": v for k, v in source.state_dict().items()}, "epoch": 3}, path)
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(Model("resnet8", str(path)).build(7)(x), source(x))


def test_code_in_a_weights_file_is_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "touched"), "w"))

    torch.save({"state_dict": {"x": Evil()}}, tmp_path / "evil.pth")
    with pytest.raises(UserError, match="cannot be read"):
        read_weights(tmp_path / "evil.pth", "model.weights")
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize("content", [b"", b"garbage", b"PK\x03\x04broken"])
def test_broken_weights_are_one_error(tmp_path, content):
    for suffix in ("pth", "safetensors"):
        path = tmp_path / f"broken.{suffix}"
        path.write_bytes(content)
        with pytest.raises(UserError, match="cannot be read"):
            read_weights(path, "model.weights")


def test_a_missing_file_is_named_with_its_key(tmp_path):
    with pytest.raises(UserError, match=r"^model\.weights=.*none\.pth': no such file$"):
        read_weights(tmp_path / "none.pth", "model.weights")


FOREIGN = {
    "a list": [1, 2],
    "numbers": {"a": 1},
    "a model inside": {"state_dict": {"a": torch.eye(2), "b": "text"}},
}


@pytest.mark.parametrize("content", FOREIGN.values(), ids=FOREIGN.keys())
def test_a_file_without_a_state_dict_is_one_error(tmp_path, content):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"holds no state dict \(name -> tensor"):
        read_weights(tmp_path / "w.pth", "model.weights")


def test_a_plain_state_dict_is_read_as_it_is(tmp_path):
    torch.save({"a.weight": torch.eye(2), "my.module.bias": torch.ones(3)}, tmp_path / "w.pth")
    assert list(read_weights(tmp_path / "w.pth", "x")) == ["a.weight", "my.module.bias"]


def test_all_that_does_not_fit_is_reported_at_once():
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 1), torch.nn.Linear(1, 1))
    state = {"0.weight": torch.zeros(2, 2), "extra": torch.zeros(()), "0.bias": torch.zeros(3)}
    before = model[0].bias.clone()
    with pytest.raises(UserError) as caught:
        load_strict(model, state, "model.weights='w.pth'")
    assert str(caught.value) == (
        "model.weights='w.pth': the weights do not fit the network: "
        "4 missing: 1.bias, 1.weight, 2.bias and 1 more; 1 unexpected: extra; "
        "1 of another shape: 0.weight (2x2 in the file, 3x2 in the network)"
    )
    assert torch.equal(model[0].bias, before)


def test_weights_that_fit_are_loaded():
    model = torch.nn.Linear(2, 1)
    load_strict(model, {"weight": torch.ones(1, 2), "bias": torch.full((1,), 5.0)}, "x")
    assert model(torch.ones(1, 2)).item() == 7
