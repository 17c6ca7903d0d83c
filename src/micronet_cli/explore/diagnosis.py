"""Which quantised layers take the logits furthest from those of the network in float; no labels are needed."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from micronet_cli.explore.in_float import in_float, quantized_layers
from micronet_cli.explore.output_errors import OutputErrors
from micronet_cli.explore.prefix import Prefix
from micronet_cli.functional.logit_distance import LogitDistance
from micronet_cli.layers.copies import copied

Row = dict[str, Any]
REMEMBERED_BYTES = 2**29  # of the outputs of all modules; decides how many images are computed together


@dataclass
class Diagnosis:
    """Of a quantised network, which is left as it was.

    Every layer's share of the logits' error is estimated, and the worst layers are put back to float, one at a time.

    Attributes:
        model: quantised, in evaluation mode.
        reference: the network in float.
        weights: of ``in_float.float_weights``.
        corrected: layers whose output has the mean that it has in float; they keep it when they are put back.
        layers: what can be put back, by name.
    """

    model: nn.Module
    reference: nn.Module
    weights: Mapping[str, Tensor]
    corrected: Collection[str] = ()
    layers: dict[str, nn.Module] = field(init=False)

    def __post_init__(self) -> None:
        self.model = copied(self.model).eval()
        self.model.requires_grad_(False)
        self.layers = quantized_layers(self.model)

    @torch.no_grad()
    def distance(self, batches: Sequence[Tensor]) -> LogitDistance:
        """Of the network as it is, over batches of images ``[N, C, H, W]``."""
        distance = LogitDistance()
        for images in batches:
            expected = self.reference(images)
            distance += LogitDistance.between(expected, self.model(images))
        return distance

    def rows(self, images: Tensor, measured: int) -> list[Row]:
        """Every layer, the worst first.

        Args:
            images: ``[N, C, H, W]``.
            measured: so many layers of the largest shares are put back to float, beside those without an estimate.

        Returns:
            ``layer``; ``error_share``: part of the logits' squared error that comes of it, to first order (None: not
            called as a module); ``error_saved``: part of that error that goes when it is put back to float;
            ``predictions_saved``: part of the predictions that return then. The last two are of measured layers, which
            come first.
        """
        prefix = Prefix(self.model, images[:1])
        together = max(1, REMEMBERED_BYTES // max(1, prefix.bytes_per_image))
        chunks = images.split(together)
        errors = OutputErrors(self.model, self.layers, self.weights, self.reference, self.corrected)
        errors.measure(chunks)
        ranked = sorted(errors.shares, key=errors.shares.__getitem__, reverse=True)
        unknown = [name for name in self.layers if name not in errors.shares]
        rows = self._measured(prefix, chunks, [*unknown, *ranked[:measured]], errors.shifts)
        rows += [{"layer": name} for name in ranked[measured:]]
        for row in rows:
            row["error_share"] = errors.shares.get(row["layer"])
        return rows

    @torch.no_grad()
    def _measured(
        self, prefix: Prefix, chunks: Sequence[Tensor], names: Sequence[str], shifts: dict[str, Tensor]
    ) -> list[Row]:
        """Those layers put back to float, one at a time."""
        before = LogitDistance()
        after = dict.fromkeys(names, LogitDistance())
        for images in chunks:
            expected = self.reference(images)
            before += LogitDistance.between(expected, prefix.record(images))
            for name in names:
                layer = self.layers[name]
                with in_float(layer, self.weights.get(name), shifts.get(name)):
                    logits = prefix.replay(images, layer)
                after[name] += LogitDistance.between(expected, logits)
        rows = []
        for name, distance in after.items():
            saved = before.error - distance.error
            returned = before.changed - distance.changed
            row = {
                "layer": name,
                "error_share": None,
                "error_saved": saved / before.error if before.error else 0.0,
                "predictions_saved": returned / before.images,
            }
            rows.append(row)
        return sorted(rows, key=lambda row: row["error_saved"], reverse=True)
