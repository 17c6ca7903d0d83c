"""ProxylessNAS Mobile-14 is the published one: size, kernels, skips."""

import pytest

from micronet_cli.models.model import InputSpec, Model


@pytest.fixture(scope="module")
def model():
    return Model("proxylessnas_mobile14").build()


def test_size_is_the_published_one(model):
    """The README of https://github.com/osmr/imgclsmob: 6,857,568 parameters."""
    assert sum(p.numel() for p in model.parameters()) == 6_857_568


def test_kernels_are_the_published_ones(model):
    kernels = [[block.conv_dw.kernel_size[0] for block in stage] for stage in model.blocks]
    assert kernels == [[3], [5, 3], [7, 3, 5, 5], [7, 5, 5, 5], [5, 5, 5, 5], [7, 7, 7, 7], [7]]


def test_a_block_that_changes_the_width_has_no_skip(model):
    skips = [[block.has_skip for block in stage] for stage in model.blocks]
    four = [False, True, True, True]
    assert skips == [[False], [False, True], four, four, four, four, [False]]


def test_timm_knows_the_input_the_stem_and_the_classifier(model):
    assert InputSpec.of(model).size == (3, 224, 224)
    assert model.pretrained_cfg["first_conv"] == "conv_stem"
    assert model.get_classifier() is model.classifier
