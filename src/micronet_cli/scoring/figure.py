"""A picture of where the score sits."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from micronet_cli.scoring.report import Report


def draw(report: "Report", path: str | Path, top: int) -> None:
    """Bars of the ``top`` layers by storage score and by math score; needs matplotlib."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    base, total = report.base, report.total
    panels = (
        ("storage", {row.layer: row.storage_params / base.params for row in report.rows()}, total.storage_score),
        ("operations", {row.layer: row.math_ops / base.ops for row in report.rows()}, total.math_score),
    )
    figure = Figure(figsize=(11, 0.6 + 0.28 * (top + 1)), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (title, scores, whole) in zip(figure.subplots(1, 2), panels, strict=True):
        largest = dict(sorted(scores.items(), key=lambda item: -item[1])[:top])
        rest = whole - sum(largest.values())
        names, heights = [*largest, f"other {max(len(scores) - len(largest), 0)}"], [*largest.values(), rest]
        colours = ["tab:blue"] * len(largest) + ["tab:gray"]
        axes.barh(range(len(names)), heights, color=colours)
        axes.set_yticks(range(len(names)), names, fontsize=7)
        axes.invert_yaxis()
        axes.set_title(f"{title}: {whole:.4f} of {total.score:.4f}", fontsize=9)
        axes.set_xlabel(f"MicroNet score ({report.rules.name})", fontsize=8)
    figure.savefig(path, dpi=120)
