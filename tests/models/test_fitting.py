"""Weights that were read, into a network: prefixes, converters, other classifiers; what does not fit is listed."""

import logging

import pytest
import timm
import torch
from timm.layers import resample_abs_pos_embed

from micronet_cli.errors import UserError
from micronet_cli.models.classifier import OtherClasses
from micronet_cli.models.fitting import fitted, load_fitted, load_strict
from micronet_cli.models.model import Model

SOURCE = "model.weights='w.pth'"


@pytest.fixture
def model():
    return Model("resnet8").build(4)


def below(prefix, state):
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


def test_what_is_beside_the_network_is_left_out_and_named(model, caplog):
    state = below("model.", model.state_dict()) | {"loss.weight": torch.ones(4), "model_acc.total": torch.zeros(1)}
    with caplog.at_level(logging.INFO):
        found = fitted(model, state, SOURCE)
    assert found.keys() == model.state_dict().keys()
    assert caplog.messages == [
        f"{SOURCE}: the network is below model.; left out: loss.weight, model_acc.total",
    ]


def test_what_is_left_over_without_a_prefix_is_a_mistake(model):
    with pytest.raises(UserError, match="1 unexpected: loss"):
        load_fitted(model, {**model.state_dict(), "loss": torch.ones(1)}, SOURCE, "data", False)


def test_of_several_networks_none_is_guessed(model):
    state = below("student.", model.state_dict()) | below("teacher.", model.state_dict())
    with pytest.raises(UserError) as caught:
        fitted(model, state, SOURCE)
    assert str(caught.value) == (
        f"{SOURCE}: holds several such networks, under student. and teacher.; save the state dict of one of them"
    )


def test_a_prefix_that_is_no_whole_name_stays(model):
    state = below("my", model.state_dict())
    with pytest.raises(UserError, match="the weights do not fit the network"):
        load_fitted(model, state, SOURCE, "data", True)


def test_counters_are_filled_in_only_where_there_are_none(model):
    state = dict(model.state_dict())
    counters = [name for name in state if name.endswith("num_batches_tracked")]
    state.pop(counters[0])
    with pytest.raises(UserError, match=f"1 missing: {counters[0]}$"):
        load_fitted(model, state, SOURCE, "data", False)
    for name in counters[1:]:
        state.pop(name)
    load_fitted(model, state, SOURCE, "data", False)


def test_timm_s_converter_resizes_positions():
    torch.manual_seed(0)
    arguments = {"num_classes": 3, "depth": 1, "embed_dim": 12, "num_heads": 2}
    at_64 = timm.create_model("vit_tiny_patch16_224", img_size=64, **arguments)
    torch.nn.init.normal_(at_64.pos_embed)
    at_96 = timm.create_model("vit_tiny_patch16_224", img_size=96, **arguments)
    load_fitted(at_96, below("model.", at_64.state_dict()), SOURCE, "data", False)
    expected = resample_abs_pos_embed(at_64.pos_embed, new_size=(6, 6), num_prefix_tokens=1)
    assert at_96.pos_embed.equal(expected)
    assert at_96.head.weight.equal(at_64.head.weight)


def test_names_of_an_architecture_s_authors_are_converted():
    """Those of Meta's ConvNeXt: stem and downsampling in one list, stages in another."""
    torch.manual_seed(0)
    small = timm.create_model("convnext_atto", num_classes=3, depths=(1, 1, 1, 1), dims=(4, 8, 8, 8))
    theirs = {}
    for name, tensor in small.state_dict().items():
        renamed = name.replace("stem.", "downsample_layers.0.").replace("head.norm.", "norm.")
        renamed = renamed.replace("head.fc.", "head.").replace("conv_dw", "dwconv").replace("mlp.fc", "pwconv")
        for stage in range(4):
            renamed = renamed.replace(f"stages.{stage}.downsample.", f"downsample_layers.{stage}.")
            renamed = renamed.replace(f"stages.{stage}.blocks.", f"stages.{stage}.")
        theirs[renamed] = tensor
    assert theirs.keys() != small.state_dict().keys()
    again = timm.create_model("convnext_atto", num_classes=3, depths=(1, 1, 1, 1), dims=(4, 8, 8, 8)).eval()
    load_fitted(again, theirs, SOURCE, "data", False)
    images = torch.randn(1, 3, 64, 64)
    assert again(images).equal(small.eval()(images))


def test_a_converter_that_fails_leaves_the_report_of_what_does_not_fit():
    model = timm.create_model("convnext_atto", num_classes=3, depths=(1, 1, 1, 1), dims=(4, 8, 8, 8))
    with pytest.raises(UserError, match=r"the weights do not fit the network: .*1 unexpected: a"):
        load_fitted(model, {"a": torch.ones(1)}, SOURCE, "data", True)


def test_a_classifier_of_other_classes_stays_out_where_it_is_trained(model, caplog):
    state = Model("resnet8").build(9).state_dict()
    own = model.linear.weight.clone()
    with pytest.raises(OtherClasses, match="the classifier has 9 classes, the data 4; "):
        load_fitted(model, state, SOURCE, "data", new_classifier=False)
    with caplog.at_level(logging.INFO):
        load_fitted(model, below("model.", state), SOURCE, "data", new_classifier=True)
    assert caplog.messages == ["model.weights: the classifier has 9 classes, the data 4: a new one is trained"]
    assert model.linear.weight.equal(own)
    assert model.conv1.weight.equal(state["conv1.weight"])


def test_weights_without_a_classifier_get_one_where_it_is_trained(model):
    state = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("linear.")}
    with pytest.raises(OtherClasses, match="no classifier, and the data has 4 classes"):
        load_fitted(model, state, SOURCE, "data", new_classifier=False)
    load_fitted(model, state, SOURCE, "data", new_classifier=True)


def test_another_network_is_no_question_of_classes(model):
    state = Model("resnet20").build(9).state_dict()
    with pytest.raises(UserError, match=r"do not fit the network: .*unexpected: .*2 of another shape: linear\.bias"):
        load_fitted(model, state, SOURCE, "data", new_classifier=True)


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


def test_a_network_without_a_classifier_that_is_known_loads_strictly():
    source, model = torch.nn.Linear(2, 3), torch.nn.Linear(2, 3)
    load_fitted(model, below("model.", source.state_dict()), SOURCE, "data", new_classifier=False)
    assert model.weight.equal(source.weight)
