"""An exported graph beside the network that it was made of, every activation quantiser on its own."""

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from micronet_cli.artifact.compare import BATCH, Comparison, watched
from micronet_cli.artifact.engines.onnxruntime import session
from micronet_cli.artifact.onnx import INPUT, OUTPUT
from micronet_cli.artifact.onnx_cuts import Cut, cut_at_quantizers

# A graph in an engine: its inputs by name -> its outputs by name.
Run = Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]


@torch.no_grad()
def compare_onnx(path: Path, model: nn.Module, images: Tensor, fused: bool = False) -> Comparison:
    """Run both on ``images [N, C, H, W]`` in single precision; the model is left as it is.

    Args:
        path: what ``export_onnx`` wrote.
        model: what it was made of, in evaluation mode.
        images: normalised for the network.
        fused: with onnxruntime's integer kernels, see ``engines.onnxruntime.session``.
    """
    comparison = Comparison()
    with cut_file(path, model, images) as (file, cuts):
        runtime = session(file, torch.get_num_threads(), fused)
        outputs = [OUTPUT, *(cut.output for cut in cuts)]
        for part in images.split(BATCH):
            with watched(model, {}) as codes:
                logits = model(part)
            feeds = {INPUT: part.numpy()} | {cut.given: cut.fed(codes) for cut in cuts}
            found_logits, *found = runtime.run(outputs, feeds)
            changed = torch.zeros(len(part), dtype=torch.bool)
            for cut, values in zip(cuts, found, strict=True):
                ours = cut.codes_in(codes)
                changed |= comparison.add_codes(cut.module, ours, cut.codes_of(values), len(part))
            comparison.add_logits(logits, torch.from_numpy(found_logits), changed)
    return comparison


@contextmanager
def cut_file(path: Path, model: nn.Module, images: Tensor) -> Iterator[tuple[Path, list[Cut]]]:
    """A copy of a file that is cut at every quantiser, and where; it lives as long as the context."""
    with torch.no_grad(), watched(model, {}) as codes:
        model(images[:1])
    proto = onnx.load(path)
    cuts = cut_at_quantizers(proto.graph, model, codes)
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "cut.onnx"
        onnx.save_model(proto, file, save_as_external_data=True)
        yield file, cuts
