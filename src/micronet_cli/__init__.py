"""micronet: compress image classifiers and prove what it claims."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from micronet_cli.compression.pruning.pruner import Pruner
    from micronet_cli.compression.quantization.quantizer import Quantizer
    from micronet_cli.layers.plain import strip
    from micronet_cli.library import export_onnx, load, pack, post_training, save
    from micronet_cli.scoring import score

__all__ = ["Pruner", "Quantizer", "export_onnx", "load", "pack", "post_training", "save", "score", "strip"]

# Imported at first use: torch takes seconds.
_HOMES = {
    "Pruner": "micronet_cli.compression.pruning.pruner",
    "Quantizer": "micronet_cli.compression.quantization.quantizer",
    "export_onnx": "micronet_cli.library",
    "load": "micronet_cli.library",
    "pack": "micronet_cli.library",
    "post_training": "micronet_cli.library",
    "save": "micronet_cli.library",
    "score": "micronet_cli.scoring",
    "strip": "micronet_cli.layers.plain",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = import_module(_HOMES[name])
    return getattr(home, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
