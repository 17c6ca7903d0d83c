"""micronet: compress image classifiers and prove what it claims."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn


def load(path: str, trust: Sequence[str] = ()) -> nn.Module:
    """The network of a run directory, checkpoint or packed file, in evaluation mode.

    Args:
        path: the file or directory.
        trust: packages beside micronet's that the file may name, as ``("mypkg",)``; naming one runs its code.

    Raises:
        UserError: the path holds none, or a damaged one.
    """
    from micronet_cli import checkpoint
    from micronet_cli.dotted_path import checked_trust

    return checkpoint.load(path, where="path", trust=checked_trust(trust)).model
