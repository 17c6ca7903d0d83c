"""The classes of a network: how many outputs it has, what they are called, and who says so."""

import re
from dataclasses import dataclass
from typing import Any

from micronet_cli.data.class_names import are_numbers
from micronet_cli.data.protocol import DataSet
from micronet_cli.errors import UserError
from micronet_cli.models.model import Model
from micronet_cli.models.own import OwnModel
from micronet_cli.network import Network


@dataclass(frozen=True)
class Head:
    """The outputs of a network.

    Attributes:
        classes: their names, in order; empty where nobody tells them.
        source: who says so.
    """

    classes: list[str]
    source: str


def fresh_head(model: Model | OwnModel, data: DataSet, config: dict[str, Any], needs_data: bool) -> Head:
    """The head of a network that is built for a data set.

    Args:
        model: the ``model`` group.
        data: the ``data`` group.
        config: of the ``data`` group.
        needs_data: else a set that does not tell its classes leaves them to timm.

    Raises:
        UserError: the data does not tell its classes, or the model is to have another number of them.
    """
    given = config.get("classes")
    own_source = "timm" if model.num_classes is None else "model.num_classes"
    try:
        names = data.class_names
    except UserError as error:
        if needs_data or given:
            raise
        reason = re.split(r"; | \(|\n", str(error))[0]
        return Head([], f"{own_source}; {reason}")
    if not names:
        return Head([], own_source)
    if model.num_classes not in (None, len(names)):
        if not needs_data:
            return Head([], own_source)  # no label is compared with an output
        raise UserError(f"model.num_classes={model.num_classes}: {_way_out(model.num_classes, len(names), given)}")
    return Head(names, _source(given))


def _source(given: str | None) -> str:
    return f"data.classes={given}" if given else "data"


def _way_out(wanted: int | None, known: int, given: str | None) -> str:
    if given:
        return f"data.classes={given} lists {known} classes; leave it null"
    return (
        f"the data has {known} classes; leave it null, or name all {wanted} outputs of a trained head with "
        "data.classes=imagenet or data.classes=<file, a name a line>"
    )


def inherited_head(
    network: Network, model: Model | OwnModel, data: DataSet, config: dict[str, Any], needs_data: bool
) -> Head:
    """The head of a network that was read from a file, which may lack names.

    Args:
        network: as it was read.
        model: the ``model`` group.
        data: the ``data`` group.
        config: of the ``data`` group.
        needs_data: whether the outputs need names.

    Raises:
        UserError: the config says otherwise.
    """
    known = network.classes
    if known and model.num_classes not in (None, len(known)):
        raise UserError(
            f"model.num_classes={model.num_classes}: the network of init_from has {len(known)} classes; leave it null"
        )
    # What its run was given is in the file; the list itself may have moved.
    given = config.get("classes")
    given_anew = given is not None and given != network.data.get("classes")
    is_nameless = needs_data and not known
    if not given_anew and not is_nameless:
        return Head(known, "init_from")
    names = data.class_names
    source = _source(given)
    _check_same_names(names, network, source)
    return Head(names, source)


def _check_same_names(names: list[str], network: Network, source: str) -> None:
    outputs = len(network.classes) or getattr(network.model, "num_classes", len(names))
    if len(names) != outputs:
        raise UserError(f"{source}: there are {len(names)}; the network of init_from has {outputs}")
    if are_numbers(network.classes):
        return  # it has no names yet
    for place, (name, known) in enumerate(zip(names, network.classes, strict=False), 1):
        if name != known:
            raise UserError(f"{source}: class {place} is {name!r}; the network of init_from has {known!r} there")
