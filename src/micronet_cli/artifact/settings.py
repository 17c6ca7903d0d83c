"""The ``export`` config group."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Export:
    """How the packed network is written and checked.

    Attributes:
        entropy: entropy-code weights and masks.
        licence: of the weights; goes into the file.
        onnx: write model.onnx beside it.
        int8: write model.int8.onnx too, with ranges from the compared images; None: where all weights and inputs have
            8 bits, so that it is the same network.
        weights: write model.safetensors too, the plain weights under timm's names.
        images: how many are compared with the checkpoint, at least 1.
        evaluate: measure the accuracy of exported files on the evaluation split, by the engines; None: where its data
            are there.
        bundle: write a directory that is ready to publish.

    Raises:
        ValueError: fewer than one image.
    """

    entropy: bool = True
    onnx: bool = True
    int8: bool | None = False
    weights: bool = True
    licence: str | None = None
    images: int = 8
    evaluate: bool | None = None
    bundle: bool = False

    def __post_init__(self) -> None:
        if self.images < 1:
            raise ValueError(f"images={self.images}: must be at least 1")
