"""Which quantised layers take the logits furthest from those of the network in float; no labels are needed."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from micronet_cli.explore.in_float import in_float, quantized_layers
from micronet_cli.explore.kept_means import kept_means
from micronet_cli.explore.output_errors import OutputErrors
from micronet_cli.explore.prefix import Prefix
from micronet_cli.functional.logit_distance import LogitDistance
from micronet_cli.layers.copies import copied

REMEMBERED_BYTES = 2**29  # of the outputs of all modules; decides how many images are computed together


@dataclass(frozen=True)
class Row:
    """What a layer has to do with the logits' squared error, and with predictions that are not those in float.

    Attributes:
        layer: its name.
        error_share: part of the error that comes of it, to first order; None: not called as a module, or without
            derivatives.
        error_saved: part of the error that goes when it is put back to float; None: not measured.
        predictions_saved: images whose prediction returns then, less those whose prediction goes; None: not measured.
    """

    layer: str
    error_share: float | None = None
    error_saved: float | None = None
    predictions_saved: int | None = None

    @property
    def part(self) -> float:
        """Of the error, as well as it is known."""
        if self.error_saved is not None:
            return self.error_saved
        return self.error_share or 0.0


@dataclass
class Diagnosis:
    """Of a quantised network, which is left as it was.

    Every layer's share of the logits' error is estimated, and the worst layers are put back to float, one at a time.

    Attributes:
        model: quantised, in evaluation mode.
        reference: the network in float.
        weights: of ``in_float.float_weights``.
        corrected: layers whose output has the mean that it has in float: it stays when one of them is put back, for the
            biases would be corrected anew.
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
        self._corrected = {name: self.model.get_submodule(name) for name in self.corrected}

    @torch.no_grad()
    def distance(self, batches: Sequence[Tensor]) -> LogitDistance:
        """Of the network as it is, over batches of images ``[N, C, H, W]``."""
        distance = LogitDistance()
        for images in batches:
            expected = self.reference(images)
            distance += LogitDistance.between(expected, self.model(images))
        return distance

    def rows(self, images: Tensor, measured: int) -> list[Row]:
        """Every layer, the worst first, measured ones before others.

        Args:
            images: ``[N, C, H, W]``.
            measured: so many layers of the largest shares are put back to float, beside those without an estimate.
        """
        prefix = Prefix(self.model, images[:1])
        together = max(1, REMEMBERED_BYTES // max(1, prefix.bytes_per_image))
        chunks = images.split(together)
        errors = OutputErrors(self.model, self.layers, self.weights, self.reference, self._corrected)
        errors.measure(chunks)
        ranked = sorted(errors.shares, key=errors.shares.__getitem__, reverse=True)
        unknown = [name for name in self.layers if name not in errors.shares]
        rows = self._measured(prefix, chunks, [*unknown, *ranked[:measured]])
        rows += [Row(name) for name in ranked[measured:]]
        return [replace(row, error_share=errors.shares.get(row.layer)) for row in rows]

    @torch.no_grad()
    def _measured(self, prefix: Prefix, chunks: Sequence[Tensor], names: Sequence[str]) -> list[Row]:
        """Those layers put back to float, one at a time."""
        before = LogitDistance()
        after = dict.fromkeys(names, LogitDistance())
        for images in chunks:
            expected = self.reference(images)
            with kept_means(self._corrected):
                before += LogitDistance.between(expected, prefix.record(images))
                for name in names:
                    layer = self.layers[name]
                    with in_float(layer, self.weights.get(name)):
                        logits = prefix.replay(images, layer)
                    after[name] += LogitDistance.between(expected, logits)
        rows = []
        for name, distance in after.items():
            saved = before.error - distance.error
            row = Row(
                layer=name,
                error_saved=saved / (before.error or 1.0),
                predictions_saved=before.changed - distance.changed,
            )
            rows.append(row)
        return sorted(rows, key=lambda row: row.part, reverse=True)
