"""Guards networks of one's own: arguments, the number of classes, and what is said of code that fails."""

import pytest
from torch import nn

from micronet_cli.config import build
from micronet_cli.errors import UserError
from micronet_cli.models.model import Model
from micronet_cli.models.own import OwnModel, model_constructor

HERE = f"{__name__}."


class Line(nn.Module):
    def __init__(self, num_classes: int, width: int = 4, act: nn.Module | None = None):
        super().__init__()
        self.act = act
        self.fc = nn.Linear(width, num_classes)


def broken(num_classes):
    raise KeyError("lost")


def no_module():
    return {}


def model_of(name, **keys):
    return build({"_target_": HERE + name, **keys}, "model", Model)


def test_the_network_gets_its_arguments_and_the_number_of_classes():
    model = model_of("Line", width=6)
    assert isinstance(model, OwnModel)
    assert model.build(3).fc.weight.shape == (3, 6)
    assert model_of("Line", num_classes=5).build(3).fc.out_features == 5


def test_modules_among_the_arguments_belong_to_one_network():
    model = model_of("Line", act={"_target_": "torch.nn.PReLU"})
    assert model.build(2).act is not model.build(2).act


def test_a_model_stays_what_it_is():
    assert model_constructor(Model) is Model


MISTAKES = {
    "unknown key": (("Line", {"widht": 3}), r"^model\.widht: unknown key; did you mean width"),
    "wrong kind": (("Line", {"width": "x"}), r"^model\.width='x': must be a whole number"),
    "hub": (("Line", {"pretrained": True}), r"^model\.pretrained=True: no hub"),
    "broken": (("broken", {}), r"^model: broken cannot be built \(KeyError: 'lost', .*test_own\.py:\d+\)"),
    "no module": (("no_module", {}), r"^model: no_module returns dict; it must return a torch\.nn\.Module"),
}


@pytest.mark.parametrize(("given", "said"), MISTAKES.values(), ids=MISTAKES.keys())
def test_mistakes_are_named(given, said):
    name, keys = given
    with pytest.raises(UserError, match=said):
        model_of(name, **keys).build(2)
