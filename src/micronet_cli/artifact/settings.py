"""The ``export`` config group."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Export:
    """What is written, and how it is checked.

    Attributes:
        entropy: entropy-code weights and masks.
        licence: of the weights; goes into the file.
        onnx: write an ONNX file too.
        images: how many are compared with the checkpoint, at least 1.
    """

    entropy: bool = True
    licence: str | None = None
    onnx: bool = False
    images: int = 8

    def __post_init__(self) -> None:
        if self.images < 1:
            raise ValueError(f"images={self.images}: at least 1 is wanted")
