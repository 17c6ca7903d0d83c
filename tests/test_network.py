"""What a file's header says of a network."""

import json
from importlib.metadata import version

import pytest
from torch import nn

from micronet_cli.models.model import InputSpec
from micronet_cli.network import VERSIONS, Network, describe, versions


@pytest.fixture
def network():
    config = {"_target_": "micronet_cli.models.model.Model", "name": "resnet8", "weights": "FILE", "pretrained": True}
    spec = InputSpec((3, 8, 8), (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    return Network(nn.Identity(), config, ["cat", "dog"], spec, [{"_target_": "x"}], {"batch_size": 4})


def test_a_description_survives_json(network):
    said = json.loads(json.dumps(describe(network, {"top1": 50.0})))
    assert said["classes"] == ["cat", "dog"]
    assert said["data"] == {"batch_size": 4}
    assert said["metrics"] == {"top1": 50.0}
    assert InputSpec.from_dict(said["input"]) == network.spec


def test_a_description_names_no_weights_to_read(network):
    said = describe(network, {})["model"]
    assert (said["name"], said["weights"], said["pretrained"]) == ("resnet8", None, False)
    assert network.config["weights"] == "FILE"


def test_a_description_leaves_the_compressors_out(network):
    assert "compressors" not in describe(network, {})


def test_versions_are_those_installed():
    found = versions()
    assert list(found) == list(VERSIONS)
    assert found["torch"] == version("torch")


def test_networks_share_no_lists_by_default():
    first, second = (Network(nn.Identity(), {}, [], InputSpec((1, 1, 1), (0.0,), (1.0,))) for _ in range(2))
    first.compressors.append({})
    first.data["x"] = 1
    assert (second.compressors, second.data, second.packed) == ([], {}, None)
