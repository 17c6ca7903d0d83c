"""micronet: compress image classifiers and prove what it claims."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


def load(path: str) -> nn.Module:
    """The network of a run directory or checkpoint, in evaluation mode.

    Raises:
        UserError: the path holds none, or a damaged one.
    """
    from micronet_cli import checkpoint

    return checkpoint.load(path, where="path").model
