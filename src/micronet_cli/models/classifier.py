"""The last layer of a network: where it is, how many classes it has, and what becomes of one with others."""

import logging
from collections.abc import Mapping
from typing import Literal

from torch import Tensor, nn

from micronet_cli.errors import UserError

log = logging.getLogger(__name__)
State = Mapping[str, Tensor]  # a state dict
Asker = Literal["network", "data", "student"]  # who says how many classes there must be
IMAGENET = 1000
# What to do where the classifier of the weights has other classes and none is trained.
WAYS_OUT = {
    "network": "model.num_classes={classes} keeps the head",
    "data": "stage=train, prune or qat trains a new one; data.classes={names} keeps the head",
    "student": "train the teacher on the student's data and give its run; data.classes={names} keeps the head",
}


class OtherClasses(UserError):
    """The weights bring a classifier of other classes, and none is trained here."""


def classifiers(model: nn.Module) -> tuple[str, ...]:
    """Names of the modules whose outputs are the classes, as timm's record of the network says."""
    record = getattr(model, "pretrained_cfg", None) or {}
    names = record.get("classifier") or ()
    if isinstance(names, str):
        return (names,)
    return tuple(names)


def classes_in(state: State, heads: tuple[str, ...]) -> int:
    """How many classes the classifiers ``heads`` have; 0 without one."""
    for head in heads:
        weight = state.get(f"{head}.weight")
        if weight is not None:
            return len(weight)
    return 0


def without_classifier(state: State, heads: tuple[str, ...]) -> dict[str, Tensor]:
    """All tensors but those of ``heads``."""
    return {name: tensor for name, tensor in state.items() if not _is_below(name, heads)}


def with_classifier_of(model: nn.Module, state: State) -> dict[str, Tensor]:
    """``state`` with the network's own classifier instead of the one that it has."""
    heads = classifiers(model)
    own = model.state_dict()
    classifier = {name: tensor for name, tensor in own.items() if _is_below(name, heads)}
    return without_classifier(state, heads) | classifier


def replace_or_refuse(source: str, given: int, needed: int, asker: Asker, trained: bool) -> None:
    """Say that the classifier is a new one.

    Args:
        source: of the weights, as ``key=value``.
        given: classes of the weights' classifier; 0: they have none.
        needed: another number of classes.
        asker: who needs as many.
        trained: the new one will be.

    Raises:
        OtherClasses: it will not.
    """
    found = f"the classifier has {given} classes, the {asker} {needed}"
    names = "imagenet" if given == IMAGENET else "FILE"
    way_out = WAYS_OUT[asker].format(classes=given, names=names)
    if not given:
        found = f"no classifier, and the {asker} has {needed} classes"
        way_out = "stage=train, prune or qat trains one"
    if not trained:
        raise OtherClasses(f"{source}: {found}; {way_out}")
    log.info("%s: %s: a new one is trained", source.partition("=")[0], found)


def _is_below(name: str, heads: tuple[str, ...]) -> bool:
    return any(name.startswith(f"{head}.") for head in heads)
