"""The door to timm: a network by name, its weights, and what it takes as input."""

import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import huggingface_hub
import timm
from timm.data import resolve_model_data_config
from torch import nn

from micronet_cli.errors import UserError, near_misses
from micronet_cli.models import (  # noqa: F401  these register their networks with timm
    cifar_densenet,
    cifar_resnet,
    kaist_micronet,
    proxylessnas,
)
from micronet_cli.models.classifier import Asker, classes_in, classifiers, replace_or_refuse
from micronet_cli.models.fitting import load_fitted
from micronet_cli.models.weights_file import read_weights


@dataclass(frozen=True)
class Model:
    """A classifier.

    Attributes:
        name: any timm name; ``resnet8/20/32/44/56`` are the CIFAR ResNets, ``densenet_bc100_k12``, ``kaist_micronet``
            and ``proxylessnas_mobile14`` networks of the 2019 challenge.
        weights: a weights file, or a trainer's checkpoint; null: random, or the hub's with ``pretrained``.
        pretrained: take the weights from timm's hub.
        num_classes: null: as many as the data has.
        args: further arguments of the timm constructor (``drop_path_rate`` and the like).
        ema: take the averaged weights of a trainer's checkpoint.
    """

    name: str
    weights: str | None = None
    pretrained: bool = False
    num_classes: int | None = None
    args: Mapping[str, Any] | None = field(default=None)
    ema: bool = False

    def __post_init__(self) -> None:
        if not is_hub(self.name) and not timm.is_model(self.name):
            known = timm.list_models()
            beginning = self.name[:2]
            alike = [name for name in known if name[:2] == beginning]
            raise UserError(f"model={self.name}: no such network{near_misses(self.name, alike or known)}")
        if self.weights and self.pretrained:
            raise ValueError("pretrained=True: weights are given too; take one of them")
        if self.ema and not self.weights:
            raise ValueError("ema=True: averaged weights come from a file; give weights=<file> too")

    def build(
        self,
        num_classes: int | None = None,
        where: str = "model",
        asker: Asker = "network",
        new_classifier: bool = False,
    ) -> nn.Module:
        """The network with its weights, in evaluation mode.

        Args:
            num_classes: where the model's own are left open.
            where: the place in the config that mistakes are named by.
            asker: who says how many classes there must be.
            new_classifier: where the weights have another classifier, the network's own, untrained one stays.

        Raises:
            OtherClasses: it may not stay.
            UserError: weights that are missing, unreadable, or do not fit.
        """
        classes = self.num_classes or num_classes
        arguments = dict(self.args or {})
        if classes:
            arguments["num_classes"] = classes
        in_a_folder = self.name.startswith("local-dir:")
        from_hub = not in_a_folder and (self.pretrained or is_hub(self.name))
        if from_hub and not hub_in_reach():
            # Its own cache may still have them; without this it would try for a minute.
            huggingface_hub.constants.HF_HUB_OFFLINE = True
        try:
            model = timm.create_model(self.name, pretrained=self.pretrained, **arguments)
        except TypeError as error:
            raise UserError(f"{where}.args: {self.name} does not take them ({error})") from None
        except Exception as error:
            if not from_hub:
                raise
            name_key = "model" if where == "model" else f"{where}.model"
            what = f"{name_key}={self.name}: it"
            if self.pretrained:
                what = f"{where}.pretrained=true: the weights of {self.name}"
            raise UserError(
                f"{what} cannot be had from the hub ({type(error).__name__}); "
                f"take a network that timm knows by name, and bring its weights as {where}.weights=<file>"
            ) from None
        state_input(model, _input_shape(model, arguments))
        if self.pretrained:
            self._check_pretrained(model, where, asker, new_classifier)
        if self.weights:
            key = f"{where}.weights"
            state = read_weights(Path(self.weights).expanduser(), key, self.ema)
            load_fitted(model, state, f"{key}={self.weights!r}", asker, new_classifier)
        return model.eval()

    def _check_pretrained(self, model: nn.Module, where: str, asker: Asker, new_classifier: bool) -> None:
        """The hub's classifier: timm leaves one of other classes out, and does not say so."""
        given = model.pretrained_cfg["num_classes"]
        needed = classes_in(model.state_dict(), classifiers(model))
        if needed not in (0, given):  # some encoders have no classifier at all
            replace_or_refuse(f"{where}.pretrained=true", given, needed, asker, new_classifier)


def is_hub(name: str) -> bool:
    """Whether timm reads which network it is: from the hub, or from a folder that is laid out like it."""
    return name.startswith(("hf-hub:", "hf_hub:", "local-dir:"))


def untrained(config: Mapping[str, Any]) -> dict[str, Any]:
    """A model's config without what says where its weights come from."""
    plain = {key: value for key, value in config.items() if key != "ema"}
    return plain | {"weights": None, "pretrained": False}


def _input_shape(model: nn.Module, arguments: Mapping[str, Any]) -> tuple[int, ...]:
    """What a network was built for: timm goes on stating what it is without these arguments."""
    channels, height, width = model.pretrained_cfg["input_size"]
    channels = arguments.get("in_chans") or channels
    sides = arguments.get("img_size") or (height, width)
    if isinstance(sides, int):
        sides = (sides, sides)
    return (channels, *sides)


def state_input(model: nn.Module, shape: Sequence[int]) -> None:
    """Write into a network's own record what it is run with, (channels, height, width).

    timm's ``pretrained_cfg`` is the one place where all that runs a network on an example looks it up.
    """
    record = getattr(model, "pretrained_cfg", None) or {}
    model.pretrained_cfg = {**record, "input_size": tuple(shape)}


def hub_in_reach(timeout_seconds: float = 5.0) -> bool:
    """Whether the Hugging Face hub answers at all."""
    request = urllib.request.Request(huggingface_hub.constants.ENDPOINT, method="HEAD")
    try:
        urllib.request.urlopen(request, timeout=timeout_seconds).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


@dataclass(frozen=True)
class InputSpec:
    """How an image becomes an input.

    Attributes:
        size: (channels, height, width).
        mean, std: per channel, of values in [0, 1].
        interpolation, crop_pct, crop_mode: timm's evaluation transform.
    """

    size: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str = "bicubic"
    crop_pct: float = 1.0
    crop_mode: str = "center"

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "InputSpec":
        """What ``dataclasses.asdict`` and JSON made of one."""
        plain: dict[str, Any] = {}
        for key, value in values.items():
            plain[key] = tuple(value) if isinstance(value, list) else value
        return cls(**plain)

    @classmethod
    def of(cls, model: nn.Module, side: int | None = None) -> "InputSpec":
        """What the network's own configuration says, at another height and width where ``side`` is given."""
        known = resolve_model_data_config(model)
        channels, height, width = known["input_size"]
        return cls(
            size=(channels, side or height, side or width),
            mean=of_channels(known["mean"], channels),
            std=of_channels(known["std"], channels),
            interpolation=known["interpolation"],
            crop_pct=known["crop_pct"],
            crop_mode=known["crop_mode"],
        )


def of_channels(of_colours: Sequence[float], channels: int) -> tuple[float, ...]:
    """A mean or deviation of each channel, where the network's own are of red, green and blue.

    Grey has their average; an alpha channel, and whatever else there is, the middle of its range.

    >>> of_channels((0.25, 0.5, 0.75), 2)
    (0.5, 0.5)
    """
    if len(of_colours) == channels:
        return tuple(of_colours)
    seen = tuple(of_colours)
    if channels < 3:
        seen = (sum(of_colours) / len(of_colours),)
    others = channels - len(seen)
    return seen + (0.5,) * others
