"""The rows of a measurement as a table for the terminal, and as a run's metrics."""

from collections.abc import Sequence
from typing import Any

from micronet_cli.latency.measurement import Row
from micronet_cli.latency.subjects import COMPRESSED, DENSE
from micronet_cli.tables import decimal

MEBI = 2**20


def shown(rows: Sequence[Row]) -> list[dict[str, str]]:
    """Rows as text: quartiles in brackets, memory and files in MiB."""
    table = []
    for row in rows:
        low = decimal(row["first_quartile_ms"], 2)
        high = decimal(row["third_quartile_ms"], 2)
        line = {
            "network": row["network"],
            "file": row["file"] or "-",
            "engine": row["engine"],
            "batch": str(row["batch_size"]),
            "threads": str(row["threads"]),
            "ms": decimal(row["latency_ms"], 2),
            "quartiles": f"{low}-{high}",
            "images/s": f"{row['images_per_second']:.1f}",
            "times faster": _or_dash(row["latency_ratio"], 2),
            "peak MiB": _or_dash(row["peak_memory_bytes"], 0, MEBI),
            "file MiB": decimal(row["file_bytes"] / MEBI, 2),
        }
        table.append(line)
    return table


def metrics(rows: Sequence[Row], batch_size: int, threads: int) -> dict[str, Any]:
    """``latency_ms latency_ratio latency_engine`` of the network's fastest row, and of the fastest dense one.

    Args:
        rows: of any batch sizes and threads.
        batch_size: of the rows that count.
        threads: of the rows that count.
    """
    counted = [row for row in rows if (row["batch_size"], row["threads"]) == (batch_size, threads)]
    if not counted:
        return {}
    dense = [row for row in counted if row["network"] == DENSE]
    own = [row for row in counted if row["network"] == COMPRESSED] or dense
    best = min(own, key=_milliseconds)
    found = {
        "latency_ms": best["latency_ms"],
        "latency_ratio": best["latency_ratio"],
        "latency_engine": best["engine"],
        "latency_file": best["file"] or None,
        "latency_batch_size": batch_size,
        "latency_threads": threads,
        "latency_file_bytes": best["file_bytes"],
        "latency_peak_memory_bytes": best["peak_memory_bytes"],
    }
    if dense:
        fastest = min(dense, key=_milliseconds)
        found |= {"dense_latency_ms": fastest["latency_ms"], "dense_latency_engine": fastest["engine"]}
    return found


def _milliseconds(row: Row) -> float:
    return row["latency_ms"]


def _or_dash(value: float | None, decimals: int, unit: float = 1) -> str:
    if value is None:
        return "-"
    return f"{value / unit:.{decimals}f}"
