"""The names of a network's outputs: ImageNet's or a file's, and which output a label of the data stands for."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from timm.data import ImageNetInfo

from micronet_cli.errors import UserError, near_misses

IMAGENET = "imagenet"
UNKNOWN = -1  # the output of a class that the network does not know: it is out of every range
MOST_LISTED = 3


def read_class_names(given: str) -> list[str]:
    """The names that ``data.classes`` stands for, in the order of the outputs.

    Args:
        given: ``imagenet``: WordNet ids of the 1,000 classes; else a text file, a name a line.

    Raises:
        UserError: no such file, or a line that is empty or there already.
    """
    if given == IMAGENET:
        return ImageNetInfo().label_names()
    where = f"data.classes={given!r}"
    try:
        text = Path(given).expanduser().read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{where}: no such file{near_misses(given, [IMAGENET])}") from None
    except UnicodeDecodeError:
        raise UserError(f"{where}: is no text; it must hold a class name a line") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{where}: cannot be read ({error})") from None
    lines = text.removesuffix("\n").split("\n")
    names = [line.strip() for line in lines]
    _check_names(names, where)
    return names


def _check_names(names: Sequence[str], where: str) -> None:
    line_of: dict[str, int] = {}
    for line, name in enumerate(names, 1):
        if not name:
            raise UserError(f"{where}: line {line} is empty; every line must be the name of an output")
        if name in line_of:
            raise UserError(f"{where}: {name!r} stands in lines {line_of[name]} and {line}; names must differ")
        line_of[name] = line


def numbered(classes: int) -> list[str]:
    """The names of outputs that have none: their numbers."""
    return [str(number) for number in range(classes)]


def are_numbers(names: Sequence[str]) -> bool:
    """Whether these are no names but the outputs' numbers."""
    return list(names) == numbered(len(names))


def outputs_of(own: Sequence[str], names: Sequence[str]) -> np.ndarray:
    """The output of each of a data set's ``own`` classes among a network's ``names``; ``UNKNOWN`` where it has none.

    >>> outputs_of(["cat", "eel"], ["dog", "cat"]).tolist()
    [1, -1]
    """
    output_of = {name: output for output, name in enumerate(names)}
    found = [output_of.get(name, UNKNOWN) for name in own]
    return np.array(found, dtype=np.int64)


def unknown_class(image: str, name: str, names: Sequence[str]) -> str:
    """What to say of an image whose class the network does not know."""
    return f"{image} is of the class {name!r}, which the network does not know{near_misses(name, names)}"


def described_unknown(unknown: Sequence[str], names: Sequence[str]) -> str:
    """Names that the network does not know, with those of its own that are like them."""
    shown = []
    for name in unknown[:MOST_LISTED]:
        near = near_misses(name, names).removeprefix("; ")
        text = f"{name} ({near})" if near else name
        shown.append(text)
    hidden = len(unknown) - len(shown)
    more = f" and {hidden} more" if hidden else ""
    return f"{len(unknown)} classes that the network does not know: {', '.join(shown)}{more}"
