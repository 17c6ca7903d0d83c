"""A network of the user's own: whatever returns a ``torch.nn.Module`` is a model, its arguments the group's keys."""

import copy
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from micronet_cli.annotations import hints_of, parameters_of
from micronet_cli.dotted_path import failure
from micronet_cli.errors import UserError
from micronet_cli.models.classifier import Asker
from micronet_cli.models.fitting import load_fitted
from micronet_cli.models.weights_file import read_weights

RESERVED: dict[str, Any] = {"weights": str | None, "pretrained": bool, "num_classes": int | None, "ema": bool}


@dataclass(frozen=True)
class OwnModel:
    """A classifier that a class or function of one's own makes.

    Attributes:
        network: returns the ``torch.nn.Module``; it may take ``num_classes``.
        args: its other arguments.
        weights: a weights file; null: as ``network`` makes it.
        pretrained: must be false: no hub has it.
        num_classes: null: as many as the data has.
        ema: take the averaged weights of a trainer's checkpoint.
    """

    network: Callable[..., nn.Module]
    args: Mapping[str, Any]
    weights: str | None = None
    pretrained: bool = False
    num_classes: int | None = None
    ema: bool = False

    def __post_init__(self) -> None:
        if self.pretrained:
            raise ValueError("pretrained=True: no hub has a network of one's own; give weights=<file>")

    @property
    def name(self) -> str:
        """What messages call it."""
        return self.network.__qualname__

    @property
    def takes_classes(self) -> bool:
        """Whether the number of classes is an argument."""
        parameters, takes_any = parameters_of(self.network)
        return takes_any or "num_classes" in parameters

    def build(
        self,
        num_classes: int | None = None,
        where: str = "model",
        asker: Asker = "network",
        new_classifier: bool = False,
    ) -> nn.Module:
        """The network with its weights, in evaluation mode; arguments as of ``Model.build``.

        Raises:
            UserError: it cannot be made, or weights that do not fit.
        """
        arguments = copy.deepcopy(dict(self.args))  # modules among them belong to one network alone
        classes = self.num_classes or num_classes
        if classes and self.takes_classes:
            arguments["num_classes"] = classes
        try:
            model = self.network(**arguments)
        except Exception as error:  # whatever the user's code does
            raise UserError(f"{where}: {self.name} cannot be built ({failure(error)})") from error
        if not isinstance(model, nn.Module):
            raise UserError(f"{where}: {self.name} returns {type(model).__name__}; it must return a torch.nn.Module")
        if self.weights:
            state = read_weights(Path(self.weights).expanduser(), f"{where}.weights", self.ema)
            load_fitted(model, state, f"{where}.weights={self.weights!r}", asker, new_classifier)
        return model.eval()


def model_constructor(target: Callable[..., Any]) -> Callable[..., Any]:
    """What makes a model of the ``model`` group: the target where it is one, else of the networks that it makes."""
    if hasattr(target, "build"):
        return target

    def make(**given: Any) -> OwnModel:
        reserved = {key: given.pop(key) for key in RESERVED if key in given}
        return OwnModel(target, given, **reserved)

    parameters, takes_any = parameters_of(target)
    shown = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in parameters.values()]
    shown = [parameter for parameter in shown if parameter.name not in RESERVED]
    for key in RESERVED:
        shown.append(inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=None))
    if takes_any:
        shown.append(inspect.Parameter("others", inspect.Parameter.VAR_KEYWORD))
    make.__annotations__ = hints_of(target) | RESERVED
    make.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]
    return make
