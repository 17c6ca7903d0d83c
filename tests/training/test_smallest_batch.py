"""Guards what a process needs of its smallest batch: an image, and more than one value for every BatchNorm."""

from dataclasses import dataclass

import pytest
import torch
from torch import nn

from micronet_cli.errors import UserError
from micronet_cli.models.model import InputSpec
from micronet_cli.training import smallest_batch as module
from micronet_cli.training.smallest_batch import check_smallest_batch, norm_of_single_values

CPU = torch.device("cpu")
SPEC = InputSpec((3, 8, 8), (0.5,) * 3, (0.5,) * 3)


@dataclass
class Train:
    """As much of a loader as is asked."""

    batch_size: int
    images: int
    device: torch.device = CPU


def network(pooled: bool) -> nn.Module:
    """BatchNorm over 8 x 8 places or, pooled, over one."""
    pool = nn.AdaptiveAvgPool2d(1) if pooled else nn.Identity()
    return nn.Sequential(nn.Conv2d(3, 4, 1), pool, nn.BatchNorm2d(4), nn.Flatten())


LONE = {"a batch": Train(1, 100), "the set": Train(8, 1)}


@pytest.mark.parametrize("train", LONE.values(), ids=LONE.keys())
def test_one_image_is_not_enough_for_batch_norm_of_one_place(train):
    text = rf"^data\.batch_size={train.batch_size}: of {train.images} training .*BatchNorm 2 needs at least 2"
    with pytest.raises(UserError, match=text):
        check_smallest_batch(network(pooled=True), train, SPEC)


def test_one_image_is_enough_elsewhere():
    check_smallest_batch(network(pooled=False), Train(1, 100), SPEC)
    check_smallest_batch(network(pooled=True), Train(2, 100), SPEC)
    check_smallest_batch(network(pooled=True), Train(1, 100), SPEC, always_frozen=True)


def test_every_process_needs_its_images(monkeypatch):
    monkeypatch.setattr(module, "world_size", lambda: 4)
    with pytest.raises(UserError, match="data: 3 training images cannot be shared by 4 processes"):
        check_smallest_batch(network(pooled=False), Train(8, 3), SPEC)
    with pytest.raises(UserError, match="BatchNorm 2"):
        check_smallest_batch(network(pooled=True), Train(4, 100), SPEC)
    check_smallest_batch(network(pooled=True), Train(8, 100), SPEC)


@pytest.mark.parametrize("training", [True, False])
def test_the_network_is_left_as_it_was(training):
    model = network(pooled=True).train(training)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert norm_of_single_values(model, torch.randn(1, 3, 8, 8)) == "2"
    assert model.training is training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not model[2]._forward_pre_hooks


def test_a_stage_answers_before_the_first_step(mistake, tmp_path, image_folder):
    options = ("stage=train", "model=resnet18", "data=imagefolder", "data.input_size=32", "data.workers=0")
    splits = [f"data.{split}={image_folder}" for split in ("train", "val", "test")]
    assert "data.batch_size=1: of 24 training images" in mistake(*options, *splits, "data.batch_size=1")
