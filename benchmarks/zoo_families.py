"""Of every timm module the network with the fewest parameters, and the smallest input that it takes.

python benchmarks/zoo_families.py        writes benchmarks/zoo_families.csv; about 15 minutes
"""

import csv
from pathlib import Path
from typing import NamedTuple

import timm
import torch
from timm.models import list_modules

FILE = Path(__file__).with_suffix(".csv")
SIDES = (64, 96, 128, 160, 192, 224, 256, 384, 512)
CLASSES = 10


class Member(NamedTuple):
    """A family's network.

    Attributes:
        family: timm module.
        network: its smallest.
        side: height and width of the input, in pixels.
        resizes: built for that size with ``img_size``.
    """

    family: str
    network: str
    side: int
    resizes: bool


def read_members() -> list[Member]:
    """The rows of the file."""
    members = []
    with FILE.open(newline="") as file:
        for row in csv.DictReader(file):
            member = Member(row["family"], row["network"], int(row["side"]), row["resizes"] == "1")
            members.append(member)
    return members


def smallest_member(family: str) -> str | None:
    """The network with the fewest parameters; None: the module registers none that can be built here."""
    parameters: dict[str, int] = {}
    for name in timm.list_models(module=family):
        try:
            with torch.device("meta"):
                model = timm.create_model(name)
        except Exception:  # built from another package, or not without values
            continue
        parameters[name] = sum(parameter.numel() for parameter in model.parameters())
    return min(parameters, key=parameters.__getitem__, default=None)


def smallest_input(name: str) -> tuple[int, bool]:
    """Side of the smallest input it computes with, and whether it has to be built for it.

    Raises:
        ValueError: it computes with none of SIDES.
    """
    for side in SIDES:
        if _computes(name, side):
            return side, False
        if _computes(name, side, img_size=side):
            return side, True
    raise ValueError(f"{name} computes with no side of {SIDES}")


def _computes(name: str, side: int, **arguments: int) -> bool:
    try:
        with torch.device("meta"):
            model = timm.create_model(name, num_classes=CLASSES, **arguments).eval()
            logits = model(torch.empty(2, 3, side, side))
    except Exception:  # a network that does not take this size says so in many ways
        return False
    return logits.shape == (2, CLASSES)


def main() -> None:
    """Choose, and write the file."""
    with FILE.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(Member._fields)
        for family in list_modules():
            name = smallest_member(family)
            if name is not None:
                side, resizes = smallest_input(name)
                writer.writerow(Member(family, name, side, int(resizes)))
                file.flush()


if __name__ == "__main__":
    main()
