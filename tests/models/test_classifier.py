"""The classifier: where it is in networks of timm, how many classes it has, and what is said of one with others."""

import logging

import pytest
import timm
import torch

from micronet_cli.errors import UserError
from micronet_cli.models.classifier import (
    OtherClasses,
    classes_in,
    classifiers,
    replace_or_refuse,
    with_classifier_of,
    without_classifier,
)
from micronet_cli.models.model import Model

NETWORKS = {
    "resnet8": ("linear",),
    "resnet18": ("fc",),
    "tf_efficientnet_lite0": ("classifier",),
    "convnext_atto": ("head.fc",),
    "deit_tiny_distilled_patch16_224": ("head", "head_dist"),
}


@pytest.mark.parametrize(("name", "heads"), NETWORKS.items(), ids=NETWORKS.keys())
def test_classifier_is_where_timm_says(name, heads):
    with torch.device("meta"):
        model = timm.create_model(name, num_classes=6)
    assert classifiers(model) == heads
    assert classes_in(model.state_dict(), heads) == 6


def test_a_network_that_is_not_timm_s_has_none_that_is_known():
    model = torch.nn.Linear(2, 3)
    assert classifiers(model) == ()
    assert classes_in(model.state_dict(), ()) == 0
    assert list(without_classifier(model.state_dict(), ())) == ["weight", "bias"]


def test_other_modules_with_a_like_name_are_no_classifier():
    state = {"fc.weight": torch.ones(5, 2), "fc.bias": torch.ones(5), "fc2.weight": torch.ones(3, 2)}
    assert list(without_classifier(state, ("fc",))) == ["fc2.weight"]
    assert classes_in(state, ("fc",)) == 5


def test_all_but_the_classifier_is_the_state_s():
    model = Model("resnet8").build(4)
    state = Model("resnet8").build(9).state_dict()
    found = with_classifier_of(model, state)
    assert found["linear.weight"].equal(model.linear.weight)
    assert found["linear.bias"].equal(model.linear.bias)
    assert found["layer3.0.conv1.weight"].equal(state["layer3.0.conv1.weight"])
    assert found.keys() == state.keys()


REFUSED = {
    "data, ImageNet": (1000, "data", "the classifier has 1000 classes, the data 10; stage=train, prune or qat trains a "
                       "new one; data.classes=imagenet keeps the head"),
    "data": (7, "data", "the classifier has 7 classes, the data 10; stage=train, prune or qat trains a new one; "
             "data.classes=FILE keeps the head"),
    "network": (7, "network", "the classifier has 7 classes, the network 10; model.num_classes=7 keeps the head"),
    "student": (7, "student", "the classifier has 7 classes, the student 10; train the teacher on the student's data "
                "and give its run; data.classes=FILE keeps the head"),
    "none": (0, "data", "no classifier, and the data has 10 classes; stage=train, prune or qat trains one"),
}  # fmt: skip


@pytest.mark.parametrize(("given", "asker", "said"), REFUSED.values(), ids=REFUSED.keys())
def test_without_training_other_classes_are_refused_with_a_way_out(given, asker, said):
    with pytest.raises(OtherClasses) as caught:
        replace_or_refuse("model.weights='w.pth'", given, 10, asker, trained=False)
    assert str(caught.value) == f"model.weights='w.pth': {said}"
    assert isinstance(caught.value, UserError)


def test_a_new_classifier_is_one_line(caplog):
    with caplog.at_level(logging.INFO):
        replace_or_refuse("model.weights='a=b.pth'", 1000, 10, "data", trained=True)
    assert caplog.messages == ["model.weights: the classifier has 1000 classes, the data 10: a new one is trained"]
