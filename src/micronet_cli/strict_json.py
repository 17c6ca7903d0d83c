"""JSON that every reader takes: it has no NaN and no infinity."""

import json
import math
from collections.abc import Mapping
from typing import Any


def json_text(value: Any, indent: int | None = None) -> str:
    """``value`` as JSON; numbers that are not finite are null, and what JSON has no word for is its text.

    >>> json_text({"loss": float("nan"), "bits": (4, 8)})
    '{"loss": null, "bits": [4, 8]}'
    """
    return json.dumps(finite(value), indent=indent, default=str, allow_nan=False)


def finite(node: Any) -> Any:
    """A copy in which numbers that are not finite are None."""
    if isinstance(node, Mapping):
        return {key: finite(value) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [finite(value) for value in node]
    if isinstance(node, float) and not math.isfinite(node):
        return None
    return node
