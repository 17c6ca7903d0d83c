"""The door to timm: a network by name, its arguments and its input."""

import pytest

from micronet_cli.errors import UserError
from micronet_cli.models.model import Model


def test_unknown_argument_is_an_error():
    with pytest.raises(UserError, match=r"model\.args"):
        Model("resnet20", args={"nonsense": 1}).build()
