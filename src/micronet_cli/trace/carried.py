"""Networks on images side by side, from layer to layer: each batch is carried forward, none is computed twice."""

import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from micronet_cli.allocator import BoundedGrowth
from micronet_cli.torch_internals import tree_leaves, version_of
from micronet_cli.trace.paused import PausedRun

log = logging.getLogger(__name__)
GROWTH_BYTES = 1 << 29


class Carried:
    """What some networks read at one layer after the other, in the executed order, while their layers change.

    Args:
        models: networks with layers of the same names.
        batches: images ``[N, C, H, W]``.
        memory_bytes: what waiting runs may hold; the rest of them waits on disk.
        directory: where that is; None: the system's own place.
    """

    def __init__(
        self,
        models: Sequence[nn.Module],
        batches: Sequence[Tensor],
        memory_bytes: float,
        directory: Path | None = None,
    ) -> None:
        self._models = models
        self._batches = batches
        self._memory_bytes = memory_bytes
        self._directory = directory
        self._runs: dict[tuple[int, int], PausedRun] = {}  # number of the network and of the batch -> its run
        self._in_use: dict[PausedRun, int] = {}
        self._growth = BoundedGrowth(GROWTH_BYTES)
        self._from_images = False
        keeping = _keeping(models[0], batches)
        if keeping:
            self._from_images = True
            log.warning("run from the images for every layer: %s keeps what it has seen", ", ".join(keeping))

    def inputs(self, name: str) -> Iterator[tuple[int, list[Tensor]]]:
        """Batch by batch, how many images, and what layer ``name`` reads in each network; valid until the next batch.

        Layers must be asked for in the order in which they are executed; one may change until the next is asked for.

        Raises:
            ValueError: a network does not call the layer on these images.
        """
        for batch, images in enumerate(self._batches):
            runs = []
            inputs = []
            for model in range(len(self._models)):
                run, x = self._advanced(model, batch, name)
                runs.append(run)
                inputs.append(x)
            yield len(images), inputs
            inputs.clear()
            del x
            for run in runs:
                self._make_room(run)

    def _advanced(self, model: int, batch: int, name: str) -> tuple[PausedRun, Tensor]:
        layer = self._models[model].get_submodule(name)
        run = self._runs.get((model, batch))
        if run is not None and not self._from_images:
            run.held.restore()
            x = run.advance(layer)
            if x is not None:
                return run, x
            # What a network calls may depend on the images: the layer may have come before.
            log.warning("%s: called in another order; run again from the images", name)
        run = self._start(model, batch)
        x = run.advance(layer)
        if x is None:
            raise ValueError(f"{name}: is not called with these images")
        return run, x

    def _start(self, model: int, batch: int) -> PausedRun:
        before = self._runs.get((model, batch))
        if before is not None:
            before.close()
            self._in_use.pop(before, None)
        run = PausedRun(self._models[model], self._batches[batch])
        self._runs[model, batch] = run
        return run

    def _make_room(self, run: PausedRun) -> None:
        """Put a run that has just paused on disk where memory is full: it is the one that is needed last."""
        self._in_use[run] = run.held.in_use
        if sum(self._in_use.values()) > self._memory_bytes:
            run.held.spill(self._directory)
            self._in_use[run] = 0
        self._growth.check()

    def close(self) -> None:
        """End all runs."""
        for run in self._runs.values():
            run.close()
        self._runs.clear()


@contextmanager
def carried(
    models: Sequence[nn.Module],
    batches: Sequence[Tensor],
    memory_bytes: float = math.inf,
    directory: Path | None = None,
) -> Iterator[Carried]:
    """Networks carried forward inside the block; arguments as of ``Carried``."""
    forward = Carried(models, batches, memory_bytes, directory)
    try:
        yield forward
    finally:
        forward.close()


@torch.no_grad()
def _keeping(model: nn.Module, batches: Sequence[Tensor]) -> list[str]:
    """Names of the modules that keep something of every batch: runs side by side would mix them up."""
    if len(batches) < 2:
        return []
    # The first run fills what is computed once, as an attention's table of positions.
    after_run = []
    for batch in batches[:2]:
        model(batch[:1])
        kept = _kept(model)
        after_run.append(kept)
    first, second = after_run
    return [name for name, tensors in second.items() if not _same(tensors, first[name])]


def _kept(model: nn.Module) -> dict[str, list[tuple[Tensor, int]]]:
    """Module -> the tensors that it holds, and how often each was written to."""
    kept = {}
    for name, module in model.named_modules():
        tensors = [leaf for leaf in tree_leaves(vars(module)) if isinstance(leaf, Tensor)]
        kept[name] = [(tensor, version_of(tensor)) for tensor in tensors]
    return kept


def _same(one: list[tuple[Tensor, int]], other: list[tuple[Tensor, int]]) -> bool:
    if len(one) != len(other):
        return False
    for (tensor, version), (other_tensor, other_version) in zip(one, other, strict=True):
        if tensor is not other_tensor or version != other_version:
            return False
    return True
