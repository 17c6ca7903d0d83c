"""What is known of a live network, so that it can be built again: timm's own record, else its class."""

import pytest
import timm
from torch import nn

from micronet_cli.config import build
from micronet_cli.models.model import Model
from micronet_cli.models.record import class_names, config_of


def test_arguments_of_the_constructor_are_found():
    model = timm.create_model("test_vit", num_classes=3, in_chans=1, img_size=64)
    config = config_of(model)
    assert (config["name"], config["args"]) == ("test_vit", {"in_chans": 1, "img_size": 64})
    again = build(config, "model").build(3)
    assert {k: v.shape for k, v in again.state_dict().items()} == {k: v.shape for k, v in model.state_dict().items()}


def test_a_network_that_was_built_from_a_config_has_it_again():
    model = Model("resnet8", args={"in_chans": 1}).build(4)
    assert config_of(model)["args"] == {"in_chans": 1}
    assert class_names(model) == ["0", "1", "2", "3"]


def test_a_replaced_head_counts():
    model = timm.create_model("test_resnet", num_classes=3)
    model.reset_classifier(2)
    assert class_names(model) == ["0", "1"]


def test_names_of_classes_are_timms():
    model = timm.create_model("test_resnet", num_classes=2)
    model.pretrained_cfg["label_names"] = ("cat", "dog")
    assert class_names(model) == ["cat", "dog"]
    model.pretrained_cfg["label_names"] = ("cat", "dog", "cow")
    assert class_names(model) == ["0", "1"]


def test_a_network_of_ones_own_is_described_by_its_class():
    assert config_of(nn.Linear(2, 2)) == {"_target_": "torch.nn.modules.linear.Linear"}
    made_by = config_of(nn.Linear(2, 2), "mypkg.make", {"width": 8, "num_classes": 2})
    assert made_by == {"_target_": "mypkg.make", "width": 8}
    assert config_of(nn.Linear(2, 2), "resnet8", {"in_chans": 1})["args"] == {"in_chans": 1}


def test_arguments_that_no_file_can_hold_are_refused():
    model = timm.create_model("test_vit", act_layer=nn.ReLU)
    with pytest.raises(ValueError, match=r"args\.act_layer="):
        config_of(model)
