"""``stage=export``: the packed network, its ONNX files and plain weights, read again and compared before they count."""

import importlib.util
import logging
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from micronet_cli.artifact import plain_weights, runtime
from micronet_cli.artifact.compare import compare_all
from micronet_cli.artifact.contents import certificate, layer_bytes, stream_bytes
from micronet_cli.artifact.pack import pack
from micronet_cli.artifact.settings import Export
from micronet_cli.compression.pruning.removal import removed_channels
from micronet_cli.config import build, check_config
from micronet_cli.data.base import Data
from micronet_cli.errors import UserError
from micronet_cli.layers.plain import activation_quantizers
from micronet_cli.models.model import Model, untrained
from micronet_cli.network import Network, describe
from micronet_cli.stages.compress import UNPACKED
from micronet_cli.stages.job import Job
from micronet_cli.stages.score import check_finite, score_network

if TYPE_CHECKING:
    from micronet_cli.stages.exported import Exported

log = logging.getLogger(__name__)
NEEDS_DATA = False
MAKES_NETWORK = False
INT8_BITS = 8
ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")  # of the extra `export`


def check(config: DictConfig) -> dict[str, Any]:
    """The config's parts.

    Raises:
        UserError: a mistake in the config, or a package that it needs is not installed.
    """
    parts = check_config(config)
    options = parts["export"]
    missing = [name for name in ONNX_PACKAGES if importlib.util.find_spec(name) is None]
    if missing and (options.onnx or options.int8):
        raise UserError(_not_installed(missing[0], options))
    return parts


def run(job: Job) -> dict[str, Any]:
    """Write model.mnet, export.json and, where the options say so, ONNX files and plain weights.

    Raises:
        UserError: the network cannot be packed, or what was packed computes something else.
    """
    network = job.network(with_data=False)
    if network.packed is not None:
        raise UserError(f"init_from={job.init_from!r}: is packed already; {UNPACKED}")
    check_finite(network)
    score = score_network(job, network).metrics()
    network.metrics = network.metrics | score  # what files say of the network
    content = _packed(job, network, score)
    checked: dict[str, Any] = {}
    if job.run.writes:
        report, checked = _write(job, network, content)
        claimed = score["storage_bytes"]
        sizes = {"file_bytes": len(content), "claimed_bytes": claimed}
        job.run.write_json("export.json", sizes | report)
        log.info("%s: %d bytes, %.0f claimed", job.run.packed, len(content), claimed)
    return score | {"file_bytes": len(content), "images": None} | checked


def _packed(job: Job, network: Network, score: dict[str, Any]) -> bytes:
    """The packed file's content.

    Raises:
        UserError: the network cannot be packed.
    """
    options = job.parts.export
    metrics = network.metrics | score
    own_fields = {"licence": options.licence, "channels": removed_channels(network.compressors)}
    header = describe(network, metrics) | own_fields
    try:
        return pack(network.model, header, options.entropy)
    except ValueError as error:
        raise UserError(f"export: {error}") from None


def _write(job: Job, network: Network, content: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    """Write all files and compare them with the checkpoint; the report, and what of it is for metrics.json.

    Raises:
        UserError: what was packed computes something else.
    """
    options = job.parts.export
    path = job.run.packed
    images, what = _images(job, network)
    job.run.write_bytes(path.name, content)
    try:
        loaded, checked = _checked(network, path, images, what)
    except UserError:
        path.unlink()
        raise
    report = {"compared_images": what} | checked
    metrics: dict[str, Any] = {}
    int8 = options.int8
    if int8 is None:
        int8 = network.metrics["weight_bits_mean"] == network.metrics["activation_bits_mean"] == INT8_BITS
    if options.onnx or int8:
        written = _onnx(job, network, images, int8)
        report["onnx"] = written
        exported = _examined(job, network, loaded, images, written)
        report["engines"] = exported.as_json()
        metrics = exported.metrics()
    if options.weights:
        report[plain_weights.NAME] = _plain_weights(job, network, images)
    if options.bundle:
        from micronet_cli.stages.bundle import write_bundle

        report["bundle"] = write_bundle(job, network, report)
    return report, metrics


def _onnx(job: Job, network: Network, images: Tensor, int8: bool) -> dict[str, Any]:
    """Write the ONNX files and run them; what was written, and how far the logits are from the network's.

    Raises:
        UserError: the extra is not installed.
    """
    try:
        from micronet_cli.artifact.onnx import check_onnx, export_onnx
        from micronet_cli.artifact.onnx_int8 import export_int8
    except ImportError as error:
        raise UserError(_not_installed(error.name, job.parts.export)) from None
    options = job.parts.export
    found: dict[str, Any] = {}
    if options.onnx:
        path = _claim_onnx(job, "model.onnx")
        found[path.name] = export_onnx(network, path)
    if int8:
        path = _claim_onnx(job, "model.int8.onnx")
        found[path.name] = export_int8(network, path, images)
    for name, written in found.items():
        path = job.run.directory / name
        written |= check_onnx(path, network.model, images, fused=True)
        log.info("%s: %d bytes", name, written["bytes"])
    return found


def _not_installed(package: str | None, options: Export) -> str:
    key = "export.onnx" if options.onnx else "export.int8"
    return f"{key}=true: {package} is not installed; install the extra `export`, or give {key}=false"


def _examined(
    job: Job, network: Network, loaded: nn.Module, images: Tensor, written: dict[str, dict[str, Any]]
) -> "Exported":
    """The files beside the network, by layer and on the evaluation split; prints the table.

    Raises:
        UserError: ``export.evaluate=true`` without evaluation data.
    """
    from micronet_cli.artifact.compare_engines import packed_report
    from micronet_cli.stages.exported import examine

    files = {}
    for name, told in written.items():
        files[job.run.directory / name] = told.get("trained_ranges", True)
    packed = packed_report(network.model.eval(), loaded, images)
    exported = examine(job, network, images, packed, files)
    log.info("files beside the network; each layer is fed with the network's own integers\n%s", exported.table())
    for warning in exported.all_warnings():
        log.warning("warning: %s", warning)
    return exported


def _plain_weights(job: Job, network: Network, images: Tensor) -> dict[str, Any]:
    """Write the weights for readers without micronet; how they load them and what is lost, or why there are none."""
    config = untrained(network.config)
    architecture: nn.Module = build(config, "model", Model).build(len(network.classes))
    path = job.run.claim(plain_weights.NAME)
    quantizers = activation_quantizers(network.model)
    call = plain_weights.loading_call(network, architecture)
    try:
        state = plain_weights.plain_state(network, architecture)
        job.run.write_bytes(path.name, plain_weights.to_bytes(state))
        checked = plain_weights.check_plain(path, network, architecture, images)
    except plain_weights.NoPlainWeights as error:
        path.unlink(missing_ok=True)
        log.warning("no %s: %s", path.name, error)
        return {"reason": str(error)}
    lost = "nothing is lost"
    if quantizers:
        lost = f"without the activation quantisers of {len(quantizers)} modules, so that its accuracy differs"
    log.info(
        "%s: %d bytes, for %s; %s: %.1f %% of the predictions equal",
        path.name, path.stat().st_size, call, lost, 100 * checked["equal_predictions"],
    )  # fmt: skip
    return {"bytes": path.stat().st_size, "load": call, "lost_activation_quantizers": quantizers} | checked


def _claim_onnx(job: Job, name: str) -> Path:
    """Note a file, and what may lie beside it because it is too large; its path."""
    job.run.claim(f"{name}.data")
    return job.run.claim(name)


def _checked(network: Network, path: Path, images: Tensor, what: str) -> tuple[nn.Module, dict[str, Any]]:
    """Load the file, compare it with the checkpoint, and say what is in it: the network that it holds, the report.

    Raises:
        UserError: the two differ.
    """
    written = path.read_bytes()  # from the disk: what is compared is what a user gets
    try:
        loaded, _ = runtime.load_bytes(written, trust=network.trust)
    except ValueError as error:
        raise UserError(f"export={str(path)!r}: {error}") from None
    try:
        found = compare_all(network.model, loaded, images)
    except ValueError as error:
        raise UserError(f"export: {error}") from None
    exact = found.get("float64_alone", found["float64"])
    log.info(
        "the same predictions on %d of %d %s images; differing activations: %d of %d in float64, %d in float32",
        exact.same_predictions, exact.images, what, exact.differing_codes, exact.codes,
        found["float32"].differing_codes,
    )  # fmt: skip
    return loaded, {
        "streams": stream_bytes(written),
        "comparison": {name: asdict(comparison) for name, comparison in found.items()},
        "layers": layer_bytes(written, loaded),
        "certificate": certificate(loaded),
    }


def _images(job: Job, network: Network) -> tuple[Tensor, str]:
    """A few inputs and the split that they are of, or ``random``.

    Ranges of integer files come from them, so that test images are taken only where there are no others.
    """
    count = job.parts.export.images
    size = network.spec.size
    data = job.parts.data
    if isinstance(data, Data):
        data = replace(data, eval_batch_size=count, cache_mb=0, workers=0)  # nothing but these is decoded
    for split in ("val", "train", "test"):
        if data.problems((split,)):
            continue
        loader = data.sample(split, count, network.spec, torch.device("cpu"), job.seed, network.classes)
        images, _ = next(iter(loader.batches()))
        if tuple(images.shape) == (count, *size):
            return images, split
    generator = torch.Generator().manual_seed(job.seed)
    return torch.randn(count, *size, generator=generator), "random"
