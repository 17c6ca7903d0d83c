"""What a published directory says: timm's config, the model card, and where its checkpoint lies."""

import pytest
from torch import nn

from micronet_cli.artifact.bundle import CHECKPOINT, bundled_checkpoint, model_card, timm_config
from micronet_cli.network import Network
from tests.artifact.exportable import SPEC

ROW = {"file": "model.onnx", "engine": "openvino", "images": 200, "top1": 91.5, "equal_predictions": 0.995}


@pytest.fixture
def network():
    config = {"name": "resnet8", "args": {"drop_rate": 0.1}}
    return Network(nn.Identity(), config, ["cat", "dog"], SPEC, metrics={"micronet_score": 0.0125})


def test_config_is_timms(network):
    config = timm_config(network, nn.Identity())
    assert config["architecture"] == "resnet8"
    assert config["label_names"] == ["cat", "dog"]
    assert config["model_args"] == {"drop_rate": 0.1}
    assert config["pretrained_cfg"]["input_size"] == [3, 12, 12]
    assert config["num_classes"] == config["pretrained_cfg"]["num_classes"] == 2


def test_card_tells_what_was_measured(network):
    card = model_card(network, "Apache-2.0", {"model.onnx": 12345}, [ROW], "micronet stage=export")
    assert "license: apache-2.0" in card
    assert "| `model.onnx` | openvino | 200 | 91.50 | 99.50 % |" in card
    assert "| `model.onnx` | 12,345 |" in card
    assert "MicroNet score 0.0125" in card
    assert "    micronet stage=export\n" in card


def test_card_without_figures_or_licence_says_so(network):
    card = model_card(network, None, {}, [], "micronet stage=export")
    assert "Not measured" in card
    assert "license:" not in card
    assert "Licence: none stated." in card


def test_a_folder_without_a_checkpoint_is_timms_alone(tmp_path):
    assert bundled_checkpoint(f"local-dir:{tmp_path}") is None
    file = tmp_path / CHECKPOINT
    file.touch()
    assert bundled_checkpoint(f"local-dir:{tmp_path}") == file
