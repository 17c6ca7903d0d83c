"""Guards what a training or a quantisation says of the weights that it begins with."""

import re

import pytest
from safetensors.torch import save_file

from micronet_cli.models.model import Model
from tests.conftest import TINY

STAGES = {
    "train": ("stage=train", "trainer.max_steps=1"),
    "ptq": ("stage=ptq", "ptq.images=10", "ptq.adaround=null"),
}
STARTING = re.compile(r"starting top-1 \d+\.\d\d % on (\d+) images of (\w+)")


def started(said):
    return STARTING.findall(said)


@pytest.mark.parametrize("stage", STAGES)
def test_weights_of_a_file_are_measured_on_some_images(micronet, tmp_path, capsys, stage):
    save_file(Model("resnet8").build(10).state_dict(), tmp_path / "weights.safetensors")
    micronet(*STAGES[stage], *TINY, f"model.weights={tmp_path / 'weights.safetensors'}")
    # Of val there are 144 images, of test 359.
    assert started(capsys.readouterr().out) == {"train": [("128", "val")], "ptq": [("128", "test")]}[stage]


def test_a_network_without_weights_is_not_measured(micronet, capsys):
    micronet(*STAGES["train"], *TINY)
    assert started(capsys.readouterr().out) == []
