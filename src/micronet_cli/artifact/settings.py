"""The ``export`` config group."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Export:
    """How the packed network is written and checked.

    Attributes:
        entropy: entropy-code weights and masks.
        licence: of the weights; goes into the file.
        images: how many are compared with the checkpoint, at least 1.
    """

    entropy: bool = True
    licence: str | None = None
    images: int = 8

    def __post_init__(self) -> None:
        if self.images < 1:
            raise ValueError(f"images={self.images}: at least 1 is wanted")
