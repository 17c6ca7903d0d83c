"""Images a second of a network as it is, as 8-bit integers and with a third of its filters gone, in each engine.

    python benchmarks/latency.py [--networks resnet18 ...] [--table FILE.md] [--json FILE.json]

Random weights and images, so no network access and no data; accuracy is not the subject here. All variants of a network
are measured in turns in one process, by the code of ``stage=latency``; a ratio is the median of the ratios to fp32 in
onnxruntime of the same round. Engines that are not installed are left out.

- fp32: PyTorch (channels_last) live; a file with BatchNorm folded in onnxruntime and OpenVINO;
- int8: ``micronet_cli.artifact.onnx_int8``;
- int8_onnxruntime: what onnxruntime's own post-training quantiser makes of the fp32 file (QDQ, per channel, 7-bit
  weights);
- pruned: fp32 after 30 % of every layer's filters were dropped and the dead channels taken out, but for what fills
  multiples of 16.
"""

import argparse
import copy
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

from micronet_cli.artifact.engines.engine import Engine
from micronet_cli.artifact.engines.known import installed_engines
from micronet_cli.artifact.onnx_int8 import Batches
from micronet_cli.artifact.onnx_operators import quiet
from micronet_cli.compression.pruning.dead_channels import find_dead_channels
from micronet_cli.compression.pruning.pruner import Pruner, SparsityRule
from micronet_cli.functional.granularity import Filter
from micronet_cli.latency.measurement import Measurement
from micronet_cli.latency.rounds import times_faster
from micronet_cli.latency.subjects import COMPRESSED, DENSE, Subject, subjects, write_int8, write_onnx
from micronet_cli.models.model import InputSpec, Model
from micronet_cli.network import Network
from micronet_cli.training.batch_norm import reestimate_batch_norm

NETWORKS = ("resnet18", "mobilenetv2_100", "tf_efficientnet_b1")
ENGINES = ("pytorch", "onnxruntime", "openvino")
REFERENCE = (DENSE, "fp32.onnx", "onnxruntime")
CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}
MULTIPLE = 16  # onnxruntime's blocked float kernels; depthwise layers of other widths fall back to slow ones
RULES = {"conv": SparsityRule("(?!({stem}|{classifier})$).*", 0.3)}


def random_network(name: str) -> Network:
    """A network whose activations have the spread that training gives them."""
    torch.manual_seed(0)
    model = Model(name).build()
    spec = InputSpec.of(model)
    reestimate_batch_norm(model, [torch.randn(8, *spec.size) for _ in range(2)])
    return Network(model.eval(), {"name": name}, [], spec)


def pruned(network: Network) -> Network:
    """A copy without 30 % of the filters of every layer but stem and classifier."""
    smaller = copy.copy(network)
    smaller.model = copy.deepcopy(network.model)
    pruner = Pruner(RULES, granularity=Filter())
    pruner.attach(smaller.model)
    pruner.update(1, 1)
    found = find_dead_channels(smaller.model, network.spec.size, MULTIPLE)
    found.removal.attach(smaller.model)
    return smaller


def all_subjects(network: Network, directory: Path, engines: Sequence[Engine]) -> list[Subject]:
    """Every variant in every engine that opens it."""
    images = torch.randn(8, *network.spec.size)
    fp32 = write_onnx(network, directory, "fp32")
    int8 = write_int8(network, directory, "int8", images)
    own = directory / "int8_onnxruntime.onnx"
    with quiet():
        quantize_static(
            fp32, own, Batches(images, 8), quant_format=QuantFormat.QDQ,
            per_channel=True, reduce_range=True, activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
        )  # fmt: skip
    smaller = write_onnx(pruned(network), directory, "pruned")
    dense = subjects(DENSE, network.model, [fp32], engines)
    return dense + subjects(COMPRESSED, None, [int8, own, smaller], engines)


def variant(subject: Subject) -> str:
    """What the table calls it."""
    name, _, _ = subject.file.partition(".")
    return name or "fp32"


def measure(
    subject_list: Sequence[Subject], images: np.ndarray, threads: int, seconds: float, clock: Callable
) -> list[dict]:
    """A row for each subject."""
    measurement = Measurement(subject_list, images, threads, clock)
    measurement.prepare()
    measurement.run(seconds)
    found = measurement.seconds
    rows = []
    for subject in subject_list:
        if subject.key not in found:
            continue
        values = found[subject.key]
        row = {
            "batch": len(images),
            "threads": threads,
            "variant": variant(subject),
            "engine": subject.engine.name,
            "images_per_second": len(images) / statistics.median(values),
            "ratio": times_faster(values, found[REFERENCE]),
            "rounds": len(values),
        }
        rows.append(row)
    return rows


def rows_of(name: str, arguments: argparse.Namespace, engines: Sequence[Engine]) -> list[dict]:
    """One row for every batch size, thread count, variant and engine."""
    network = random_network(name)
    random = np.random.default_rng(0)
    rows = []
    with tempfile.TemporaryDirectory() as directory:
        subject_list = all_subjects(network, Path(directory), engines)
        for batch in arguments.batches:
            images = random.standard_normal((batch, *network.spec.size), dtype=np.float32)
            for threads in arguments.threads:
                found = measure(subject_list, images, threads, arguments.seconds, CLOCKS[arguments.clock])
                new = [{"network": name} | row for row in found]
                print("\n".join(line(row) for row in new), flush=True)
                rows += new
    return rows


def line(row: dict) -> str:
    """A row as Markdown."""
    where = " | ".join(str(row[key]) for key in ("network", "batch", "threads", "variant", "engine"))
    return f"| {where} | {row['images_per_second']:.1f} | {row['ratio']:.2f} |"


def best_int8(rows: list[dict]) -> list[str]:
    """For each network the better engine for its int8 file, one image on one thread."""
    told = []
    for name in dict.fromkeys(row["network"] for row in rows):
        own = [row for row in rows if (row["network"], row["variant"]) == (name, "int8")]
        alone = [row for row in own if (row["batch"], row["threads"]) == (1, 1)]
        if alone:
            best = max(alone, key=lambda row: row["ratio"])
            told.append(f"- {name}: {best['ratio']:.2f} times as fast as fp32 in onnxruntime, in {best['engine']}")
    return told


def table(rows: list[dict], clock: str, engines: Sequence[Engine]) -> str:
    """The whole report as Markdown."""
    processor = platform.processor() or platform.machine()
    versions = ", ".join(f"{engine.package} {version(engine.package)}" for engine in engines)
    head = [
        "# Latency",
        "",
        f"{versions}, {processor}, {clock} time; `benchmarks/latency.py` says what the variants are. Ratio: to fp32 in "
        "onnxruntime.",
        "",
        "int8 in the better engine, one image on one thread:",
        "",
        *best_int8(rows),
        "",
        "| network | batch | threads | variant | engine | images/s | ratio |",
        "|---|---:|---:|---|---|---:|---:|",
    ]
    return "\n".join([*head, *(line(row) for row in rows)]) + "\n"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    parser.add_argument("--batches", nargs="+", type=int, default=(1, 32))
    parser.add_argument("--threads", nargs="+", type=int, default=(1, 2))
    parser.add_argument("--seconds", type=float, default=8.0, help="time for each combination of batch and threads")
    parser.add_argument(
        "--clock", choices=CLOCKS, default="wall", help="processor: sum over threads, on a busy machine"
    )
    parser.add_argument("--table", type=Path)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    engines = [engine for engine in installed_engines() if engine.name in ENGINES]
    rows: list[dict] = []
    for name in arguments.networks:
        rows += rows_of(name, arguments, engines)
    print("\n".join(best_int8(rows)))
    if arguments.table:
        arguments.table.write_text(table(rows, arguments.clock, engines))
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
