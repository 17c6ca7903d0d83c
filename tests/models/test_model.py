import pytest
import timm
import torch
from safetensors.torch import save_file

from micronet_cli.errors import UserError
from micronet_cli.models.model import InputSpec, Model
from micronet_cli.models.weights_file import read_weights


@pytest.mark.parametrize(
    ("name", "parameters"), [("resnet20", 269_722), ("resnet32", 464_154), ("resnet44", 658_586), ("resnet56", 853_018)]
)
def test_cifar_resnets_have_the_papers_size(name, parameters):
    # Table 6 of arXiv 1512.03385: 0.27, 0.46, 0.66, 0.85 M.
    model = Model(name).build()
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


def test_shortcut_subsamples_and_pads():
    block = timm.create_model("resnet8").layer2[0]
    for parameter in block.parameters():
        torch.nn.init.zeros_(parameter)
    x = torch.rand(1, 16, 8, 8)
    out = block.eval()(x)
    assert torch.equal(out[:, 8:24], x[:, :, ::2, ::2])
    assert out[:, :8].abs().sum() == out[:, 24:].abs().sum() == 0


def test_cifar_resnets_take_the_image_as_it_is():
    spec = InputSpec.of(Model("resnet20").build())
    assert (spec.size, spec.crop_pct) == ((3, 32, 32), 1.0)


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


def test_unknown_argument_is_an_error():
    with pytest.raises(UserError, match=r"model\.args"):
        Model("resnet20", args={"nonsense": 1}).build()
