"""Weights files: what is read is what was saved, and a broken file is one error."""

import pytest
import torch
from safetensors.torch import save_file

from micronet_cli.errors import UserError
from micronet_cli.models.model import Model
from micronet_cli.models.weights_file import read_weights


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
