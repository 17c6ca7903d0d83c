"""Model, input and data of a header are refused before anything is built from them."""

import copy

import pytest
import timm

from micronet_cli.artifact.format import Damaged
from micronet_cli.artifact.header import check_header, described
from tests.artifact.networks import header


@pytest.fixture(scope="module")
def good():
    return header(timm.create_model("test_resnet"), "test_resnet", 16)


CHANGES = {
    "model": (lambda h: h.update(model=None), "model: must be a config"),
    "foreign key": (lambda h: h["model"].update(code="x"), "and its own keys are allowed"),
    "hub": (lambda h: h["model"].update(name="hf-hub:a"), "must be a name that timm itself knows"),
    "weights": (lambda h: h["model"].update(pretrained=True), "weights are in the file itself"),
    "args": (lambda h: h["model"].update(args=[1]), "model.args: must be keys and values"),
    "path": (lambda h: h["model"].update(args={"a": ["/etc"]}), "model.args.a: not allowed"),
    "large": (lambda h: h["model"].update(args={"a": 65537}), "model.args.a: not allowed"),
    "long": (lambda h: h["model"].update(args={"a": "x" * 65}), "model.args.a: not allowed"),
    "classes": (lambda h: h.update(classes="abc"), "classes: must be a list of names"),
    "count": (lambda h: h["model"].update(num_classes=2.0), "must be a count or null"),
    "other count": (lambda h: h["model"].update(num_classes=2), "another number than there are classes"),
    "no input": (lambda h: h.pop("input"), "input: not an input"),
    "size": (lambda h: h["input"].update(size=[3, 16]), "input.size: must be channels, height and width"),
    "mean": (lambda h: h["input"].update(mean=[0, 0]), "input.mean, input.std"),
    "deviation": (lambda h: h["input"].update(std=[1, 0, 1]), "the deviations above 0"),
    "interpolation": (lambda h: h["input"].update(interpolation=1), "input.interpolation: must be a name"),
    "crop": (lambda h: h["input"].update(crop_pct=0), "input.crop_pct: must be in"),
    "data": (lambda h: h.update(data=[]), "data: must be a config"),
    "target": (lambda h: h.update(data={"a": [{"_target_": "os.system"}]}), "'os.system' is not allowed"),
}


def test_good_header_describes_its_model(good):
    check_header(good)
    assert described(good).name == "test_resnet"


@pytest.mark.parametrize("case", CHANGES)
def test_bad_header_is_refused_with_its_place(good, case):
    change, message = CHANGES[case]
    changed = copy.deepcopy(good)
    change(changed)
    with pytest.raises(Damaged, match=message):
        check_header(changed)
