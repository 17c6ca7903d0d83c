"""Weights that were read into the network that they are for: names, converters, the classifier."""

import logging
import sys
from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from micronet_cli.errors import UserError
from micronet_cli.models.classifier import (
    Asker,
    State,
    classes_in,
    classifiers,
    replace_or_refuse,
    with_classifier_of,
    without_classifier,
)
from micronet_cli.models.stem import with_stem_of

log = logging.getLogger(__name__)
COUNTER = ".num_batches_tracked"  # of a BatchNorm; files of old have none, and nothing computes with it


def fitted(model: nn.Module, state: State, where: str) -> dict[str, Tensor]:
    """``state`` under the network's names, as far as that is possible; what does not fit is left as it is.

    A prefix of all names is taken off where the rest are then the network's, and timm's converter runs for files that
    were not made by timm, or at another image size. A first convolution for other channels is made of one for colours.

    Raises:
        UserError: several networks of these names.
    """
    own = model.state_dict()
    heads = classifiers(model)
    found = with_stem_of(model, _without_prefix(own, state, heads, where), where)
    counters = {name: tensor for name, tensor in own.items() if name.endswith(COUNTER)}
    if not counters.keys() & found.keys():
        found |= counters
    if not _misfits(own, found, heads):
        return found
    converted = with_stem_of(model, _converted(model, found), where)
    if _misfits(own, converted, heads):
        return found
    return converted


def load_fitted(model: nn.Module, state: State, source: str, asker: Asker, new_classifier: bool) -> None:
    """Load ``state`` under the network's names; a classifier of other classes is left out.

    Args:
        model: the network.
        state: its weights.
        source: of the weights, as ``key=value``.
        asker: who says how many classes there must be.
        new_classifier: the network's own, untrained classifier may stay.

    Raises:
        OtherClasses: it may not.
        UserError: the weights do not fit.
    """
    state = fitted(model, state, source)
    heads = classifiers(model)
    own = model.state_dict()
    given = classes_in(state, heads)
    needed = classes_in(own, heads)
    if needed not in (0, given) and not _misfits(own, state, heads):
        replace_or_refuse(source, given, needed, asker, new_classifier)
        state = with_classifier_of(model, state)
    load_strict(model, state, source)


def load_strict(model: nn.Module, state: State, where: str) -> None:
    """Load ``state`` into ``model``; nothing may be missing, left over or of another shape.

    Raises:
        UserError: the report of what does not fit.
    """
    found = _misfits(model.state_dict(), state)
    if found:
        raise UserError(f"{where}: the weights do not fit the network: " + "; ".join(found))
    model.load_state_dict(state)


def _without_prefix(own: State, state: State, heads: tuple[str, ...], where: str) -> dict[str, Tensor]:
    """``state`` without the prefix that its names have and the network's have not.

    What has another beginning belongs to something else: a loss, a metric.
    """
    needed = [name for name in without_classifier(own, heads) if not name.endswith(COUNTER)]
    anchor = needed[0]
    prefixes = []
    for name in state:
        prefix = name.removesuffix(anchor)
        if name.endswith(f".{anchor}") and all(prefix + other in state for other in needed):
            prefixes.append(prefix)
    if anchor in state or not prefixes:
        return dict(state)
    if len(prefixes) > 1:
        raise UserError(
            f"{where}: holds several such networks, under {' and '.join(prefixes)}; save the state dict of one of them"
        )
    prefix = prefixes[0]
    found = {}
    others = []
    for name, tensor in state.items():
        if name.startswith(prefix):
            found[name.removeprefix(prefix)] = tensor
        else:
            others.append(name)
    if others:
        log.info("%s: the network is below %s; left out: %s", where, prefix, _some(others))
    return found


def _converted(model: nn.Module, state: State) -> dict[str, Tensor]:
    """What timm's converter for the architecture makes of it; unchanged where there is none for such files."""
    architecture = sys.modules[type(model).__module__]
    convert: Any = getattr(architecture, "checkpoint_filter_fn", None)
    if convert is None:
        return dict(state)
    try:
        return convert(dict(state), model)
    except Exception:  # whatever it stumbles over in a file that it was not made for
        return dict(state)


def _misfits(own: State, state: State, heads: tuple[str, ...] = ()) -> list[str]:
    """What is missing, left over or of another shape, apart from the classifiers ``heads``."""
    own = without_classifier(own, heads)
    state = without_classifier(state, heads)
    other_shapes = []
    for name in own.keys() & state.keys():
        given = _shape(state[name])
        needed = _shape(own[name])
        if given != needed:
            other_shapes.append(f"{name} ({given} in the file, {needed} in the network)")
    problems = [
        _listed("missing", own.keys() - state.keys()),
        _listed("unexpected", state.keys() - own.keys()),
        _listed("of another shape", other_shapes),
    ]
    return [problem for problem in problems if problem]


def _shape(tensor: Tensor) -> str:
    sizes = [str(size) for size in tensor.shape]
    return "x".join(sizes) or "scalar"


def _listed(what: str, names: Iterable[str]) -> str:
    found = sorted(names)
    if not found:
        return ""
    return f"{len(found)} {what}: {_some(found)}"


def _some(names: list[str]) -> str:
    text = ", ".join(names[:3])
    hidden = len(names) - 3
    return f"{text} and {hidden} more" if hidden > 0 else text
