"""Guards descriptions of live networks: what does not fit is told before anything is written."""

from typing import NamedTuple

import pytest
import torch
from torch import nn

from micronet_cli.library.description import described
from tests.library.test_library import OWN, Own

PATH = f"{Own.__module__}.{Own.__qualname__}"


class Script(Own):
    """As if the script that runs had defined it."""


Script.__module__ = "__main__"


def make(num_classes):
    return Own(num_classes)


class Refused(NamedTuple):
    model: nn.Module
    changes: dict
    said: str


REFUSED = {
    "no input": Refused(Own(2), {"input_shape": None}, r"input_shape=None: the network states none"),
    "another input": Refused(Own(2), {"input_shape": (3, 8, 8)}, r"input_shape=\(3, 8, 8\): the network does not take"),
    "no logits": Refused(nn.Conv2d(1, 2, 3), {"name": PATH}, r"answers two images with \[2, 2, 6, 6\]"),
    "too few names": Refused(Own(2), {"classes": ["a"]}, r"there are 1 names, and the network has 2 outputs"),
    "no such name": Refused(Own(2), {"name": "resnet2"}, r"name=resnet2: must be .*did you mean .*resnet20"),
    "a script's class": Refused(Script(2), {}, r"model=Script: must be in a module, not in the script"),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED.keys())
def test_a_description_that_does_not_fit_is_refused(case):
    with pytest.raises(ValueError, match=case.said):
        described(case.model, **{"input_shape": OWN["input_shape"]} | case.changes)


WRAPPED = {"parallel": nn.DataParallel, "compiled": torch.compile}


@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED.keys())
def test_the_class_of_the_network_describes_it_whatever_wraps_it(wrap):
    network = described(wrap(Own(2, width=8)), **OWN)
    assert network.config == {"_target_": PATH, "width": 8}
    assert network.trust == ("tests",)
    assert network.classes == ["0", "1"]
    assert network.spec.size == (1, 8, 8)


def test_a_function_that_made_the_network_describes_it():
    path = f"{make.__module__}.{make.__qualname__}"
    assert described(make(2), name=path, input_shape=(1, 8, 8)).config == {"_target_": path}
