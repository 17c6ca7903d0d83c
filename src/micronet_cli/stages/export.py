"""``stage=export``: the packed network and its ONNX files, read again and compared before they count."""

import logging
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from micronet_cli.artifact import runtime
from micronet_cli.artifact.compare import Comparison, compare
from micronet_cli.artifact.contents import certificate, layer_bytes, stream_bytes
from micronet_cli.artifact.pack import pack
from micronet_cli.compression.pruning.removal import Removal
from micronet_cli.data.base import Data
from micronet_cli.errors import UserError
from micronet_cli.network import Network, describe
from micronet_cli.stages.compress import UNPACKED
from micronet_cli.stages.job import Job
from micronet_cli.stages.score import score_network

log = logging.getLogger(__name__)
# Stored scales have 32 bits, so a code may fall on the other side of a tie; more than this is a fault.
MOST_DIFFERING_CODES = 1e-4


def run(job: Job) -> dict[str, Any]:
    """Write model.mnet, export.json and, where the options say so, ONNX files.

    Raises:
        UserError: the network cannot be packed, or what was packed computes something else.
    """
    options = job.parts.export
    network = job.network(with_data=False)
    if network.packed is not None:
        raise UserError(f"init_from={job.init_from!r}: is packed already; {UNPACKED}")
    score = score_network(job, network).metrics()
    channels = [
        {key: config[key] for key in ("outputs", "inputs")}
        for config in network.compressors
        if config["_target_"] == f"{Removal.__module__}.{Removal.__qualname__}"
    ]
    header = describe(network, network.metrics | score) | {"licence": options.licence, "channels": channels}
    try:
        content = pack(network.model, header, options.entropy)
    except ValueError as error:
        raise UserError(f"export: {error}") from None
    path = job.run.packed
    if job.run.writes:
        images, what = _images(job, network)
        job.run.write_bytes(path.name, content)
        try:
            report = {"compared_images": what} | _checked(network, path, images, what)
        except UserError:
            path.unlink()
            raise
        if options.onnx or options.int8:
            report["onnx"] = _onnx(job, network, images)
        claimed = score["storage_bytes"]
        job.run.write_json("export.json", {"file_bytes": len(content), "claimed_bytes": claimed} | report)
        log.info("%s: %d bytes, %.0f claimed", path, len(content), claimed)
    return score | {"file_bytes": len(content), "images": None}


def _onnx(job: Job, network: Network, images: Tensor) -> dict[str, Any]:
    """Write the ONNX files and run them; what was written, and how far the logits are from the network's.

    Raises:
        UserError: the extra is not installed.
    """
    try:
        from micronet_cli.artifact.onnx import check_onnx, export_onnx
        from micronet_cli.artifact.onnx_int8 import export_int8
    except ImportError as error:
        raise UserError(
            f"export.onnx=true: {error.name} is not installed; install the extra `export`, or give export.onnx=false"
        ) from None
    options, directory = job.parts.export, job.run.directory
    found: dict[str, Any] = {}
    if options.onnx:
        found["model.onnx"] = export_onnx(network, job.run.claim("model.onnx"))
    if options.int8:
        found["model.int8.onnx"] = export_int8(network, job.run.claim("model.int8.onnx"), images)
    for name, written in found.items():
        written |= check_onnx(directory / name, network.model, images, fused=True)
        log.info(
            "%s: %d bytes; largest deviation of a logit %.2g of %.2g, %.1f %% of the predictions equal",
            name, written["bytes"], written["max_abs_deviation"], written["max_abs_logit"],
            100 * written["equal_predictions"],
        )  # fmt: skip
    return found


def _checked(network: Network, path: Path, images: Tensor, what: str) -> dict[str, Any]:
    """Load the file, compare it with the checkpoint, and say what is in it.

    Raises:
        UserError: the two differ.
    """
    written = path.read_bytes()  # from the disk: what is compared is what a user gets
    try:
        loaded, _ = runtime.load_bytes(written)
    except ValueError as error:
        raise UserError(f"export={str(path)!r}: {error}") from None
    found: dict[str, Comparison] = {}
    for dtype in (torch.float64, torch.float32):
        name = str(dtype).removeprefix("torch.")
        try:
            found[name] = compare(network.model, loaded, images, dtype)
        except ValueError as error:
            raise UserError(f"export: {error}") from None
    exact = found["float64"]
    if exact.unexplained or exact.differing_codes > MOST_DIFFERING_CODES * exact.codes:
        where = max(exact.differing_by_module, key=exact.differing_by_module.__getitem__, default="the logits")
        raise UserError(
            f"export: the packed network differs from its checkpoint: {exact.differing_codes} of {exact.codes} "
            f"activations, most at {where}; {exact.images - exact.same_predictions} of {exact.images} predictions"
        )
    log.info(
        "the same predictions on %d of %d %s images; differing activations: %d of %d in float64, %d in float32",
        exact.same_predictions, exact.images, what, exact.differing_codes, exact.codes,
        found["float32"].differing_codes,
    )  # fmt: skip
    return {
        "streams": stream_bytes(written),
        "comparison": {name: asdict(comparison) for name, comparison in found.items()},
        "layers": layer_bytes(written, loaded),
        "certificate": certificate(loaded),
    }


def _images(job: Job, network: Network) -> tuple[Tensor, str]:
    """A few inputs, and what they are: test images where the data are there."""
    count, size = job.parts.export.images, network.spec.size
    data = job.parts.data
    if data is not None and not data.problems(("test",)):
        if isinstance(data, Data):
            data = replace(data, eval_batch_size=count, cache_mb=0, workers=0)  # nothing but these is decoded
        loader = data.loader("test", network.spec, torch.device("cpu"), job.seed, network.classes)
        images = next(iter(loader.batches()))[0]
        if len(images) == count and tuple(images.shape[1:]) == tuple(size):
            return images, "test"
    return torch.randn(count, *size, generator=torch.Generator().manual_seed(job.seed)), "random"
