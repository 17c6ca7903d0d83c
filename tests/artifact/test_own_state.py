"""Tensors of a network by name: of a module that several others hold there is one set."""

import torch
from torch import nn

from micronet_cli.artifact import runtime
from micronet_cli.artifact.own_state import own_state
from micronet_cli.artifact.pack import pack
from micronet_cli.compression.quantization.quantizer import BitsRule, Quantizer
from micronet_cli.models.model import InputSpec, Model
from micronet_cli.network import Network, describe


def test_a_shared_module_goes_by_its_first_name():
    shared = nn.Linear(2, 2, bias=False)
    model = nn.ModuleDict({"a": nn.Sequential(shared), "b": nn.Sequential(shared), "c": nn.Linear(2, 1)})
    assert list(model.state_dict()) == ["a.0.weight", "b.0.weight", "c.weight", "c.bias"]
    assert list(own_state(model)) == ["a.0.weight", "c.weight", "c.bias"]


def test_parameters_and_buffers_of_the_network_itself_count():
    model = nn.BatchNorm1d(1)
    assert list(own_state(model)) == list(model.state_dict())


SMALL = {
    "embed_dims": [16] * 4, "serial_depths": [2, 1, 1, 1], "num_heads": 8, "mlp_ratios": [1] * 4, "img_size": 32,
}  # fmt: skip


def test_a_quantised_network_whose_blocks_share_modules_is_packed():
    """timm's CoaT: the blocks of a stage hold one position encoding."""
    config = {"_target_": "micronet_cli.models.model.Model", "name": "coat_lite_tiny", "num_classes": 2, "args": SMALL}
    torch.manual_seed(0)
    model = Model("coat_lite_tiny", num_classes=2, args=SMALL).build()
    assert len(own_state(model)) < len(model.state_dict())
    Quantizer({"all": BitsRule(".*")}, 4, 4).attach(model)
    images = torch.randn(2, 3, 32, 32)
    model.train()(images)
    model.eval()
    network = Network(model, config, ["a", "b"], InputSpec.of(model))
    loaded, _ = runtime.load_bytes(pack(model, describe(network, {})))
    with torch.no_grad():
        torch.testing.assert_close(loaded(images), model(images), rtol=1e-4, atol=1e-4)
