"""The scorer on every family of timm, against torch's counter, and its price in time.

    python benchmarks/scoring.py [--per-family 4] [--output benchmarks/scoring.md]
    python benchmarks/scoring.py --real [FAMILY ...]

Architectures are built without values. ``--real`` builds one real network of every family, or of those that are named,
at its smallest input (``zoo_families.csv``) instead, and scores its weights with half of the elements of each dropped:
values that a network gathers or views are met so. A second or two a network.

fvcore and ptflops are shown side by side where they are installed (pip install fvcore ptflops).
About four minutes on one core.
"""

import argparse
import importlib.util
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import timm
import torch
from timm.models import list_modules
from torch.utils.flop_counter import FlopCounterMode
from zoo_families import Member, read_members

from micronet_cli.compression.pruning.pruner import Pruner, SparsityRule
from micronet_cli.compression.quantization.quantizer import BitsRule, Quantizer
from micronet_cli.layers.fake_quantize import ActivationFakeQuantize
from micronet_cli.layers.rules import own_shape
from micronet_cli.scoring import rule_set, score_with
from micronet_cli.trace.trace import Trace

MODEL = "tf_efficientnet_b1"
SHAPE = (3, 224, 224)
BUILD = f"import torch, timm; model = timm.create_model('{MODEL}')"
SCORE = "from micronet_cli.scoring import score; score(model)"


@dataclass
class Result:
    """What one architecture gave; ``problem`` is empty where all is well."""

    name: str
    ours: float
    torchs: float
    additions: float
    score: float
    seconds: float
    forward_seconds: float
    problem: str = ""


def architectures(per_family: int) -> list[str]:
    """Of every timm module, ``per_family`` names spread over its list."""
    chosen: dict[str, None] = {}
    for module in list_modules():
        names = timm.list_models(module=module)
        last = max(per_family - 1, 1)
        chosen |= dict.fromkeys(names[round(i * (len(names) - 1) / last)] for i in range(per_family) if names)
    return list(chosen)


def meta_model(name: str) -> torch.nn.Module:
    """Structure without weights."""
    with torch.device("meta"):
        return timm.create_model(name).eval().requires_grad_(False)


def measure(name: str) -> Result:
    """Score one architecture without weights and count it by torch."""
    model = meta_model(name)
    shape = own_shape(model)
    example = torch.empty(1, *shape, device="meta")
    start = time.perf_counter()
    model(example)
    forward = time.perf_counter() - start
    try:
        start = time.perf_counter()
        report = score_with(model, rule_set("official"), shape)
        seconds = time.perf_counter() - start
    except Exception as error:  # whatever goes wrong is a line of the table
        return Result(name, 0, 0, 0, 0, 0, forward, repr(error)[:120])
    ours = sum(op.dot.multiplications for op in report.network.ops if op.dot) + report.network.free_multiplications
    with FlopCounterMode(display=False) as counter:
        model(example)
    torchs = counter.get_total_flops() / 2
    problem = "" if ours == torchs else "differs"
    return Result(name, ours, torchs, report.total.additions, report.total.score, seconds, forward, problem)


def architecture_lines(results: list[Result]) -> list[str]:
    """The table of architectures."""
    good = [r for r in results if not r.problem]
    lines = [
        "## Architectures",
        "",
        f"{len(good)} of {len(results)} architectures, from {len(list_modules())} modules of timm {timm.__version__}, "
        "score without error and with torch's count of multiplications (convolutions and matrix products, dense, "
        f"those of parameters alone included); {sum(r.seconds for r in results):.0f} s of scoring, "
        f"median {statistics.median(r.seconds for r in results) * 1e3:.0f} ms, "
        f"{statistics.median(r.seconds / r.forward_seconds for r in good):.2f} x a forward pass on meta tensors.",
        "",
        "| architecture | multiplications | torch's | all additions | score | ms | problem |",
        "|---|---:|---:|---:|---:|---:|---|",
    ]
    for r in results:
        counts = f"{r.ours:,.0f} | {r.torchs:,.0f} | {r.additions:,.0f}"
        lines.append(f"| {r.name} | {counts} | {r.score:.3f} | {r.seconds * 1e3:.0f} | {r.problem} |")
    return lines


def measure_real(member: Member) -> tuple[str, ...]:
    """Score a network with values; its row: zeros of its products' weights, and what went wrong."""
    arguments = {"img_size": member.side} if member.resizes else {}
    model = timm.create_model(member.network, **arguments).eval().requires_grad_(False)
    pruner = Pruner({"all": SparsityRule(".*", sparsity=0.5)})
    start = time.perf_counter()
    try:
        pruner.attach(model)
        pruner.update(1, 1)
        channels, _, _ = own_shape(model)
        shape = (channels, member.side, member.side)
        figures = score_with(model, rule_set("official"), shape).metrics()
    except Exception as error:  # whatever goes wrong is a line of the table
        return member.family, member.network, "", "", "", repr(error)[:120]
    seconds = time.perf_counter() - start
    cells = f"{figures['weight_sparsity']:.3f}", f"{figures['micronet_score']:.4f}", f"{seconds:.1f}"
    return member.family, member.network, *cells, ""


def real_lines(families: list[str]) -> list[str]:
    """The table of real networks; all families where none is named."""
    members = read_members()
    if families:
        members = [member for member in members if member.family in families]
    lines = [
        "## Real weights",
        "",
        "| family | network | zeros | score | s | problem |",
        "|---|---|---:|---:|---:|---|",
    ]
    return lines + [f"| {' | '.join(measure_real(member))} |" for member in members]


def recipe(model: torch.nn.Module) -> torch.nn.Module:
    """60 % sparse, 4-bit weights and inputs, everywhere."""
    for compressor in (
        Pruner({"all": SparsityRule(".*", sparsity=0.6)}),
        Quantizer({"all": BitsRule(".*")}, weight_bits=4, activation_bits=4),
    ):
        compressor.attach(model)
        compressor.update(1, 1)
    return model


def median_ms(call: Callable[[], object], repeats: int = 15) -> float:
    """Median time of a call in milliseconds."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e3


def speed_lines() -> list[str]:
    """Times within a process."""
    model, rules = recipe(timm.create_model(MODEL).eval()), rule_set("official")
    trace = Trace(model, SHAPE)
    quantizers = [m for m in model.modules() if isinstance(m, ActivationFakeQuantize)]

    def reprice() -> None:
        """Score at other bits."""
        for quantizer in quantizers:
            quantizer.bits = random.choice((3, 4, 8))
        score_with(trace, rules).metrics()

    dense, example = timm.create_model(MODEL).eval(), torch.empty(1, *SHAPE, device="meta")
    meta = meta_model(MODEL)
    rows = {
        "forward on meta tensors": median_ms(lambda: meta(example)),
        "trace and score, no compression": median_ms(lambda: score_with(dense, rules, SHAPE).metrics(), 7),
        "trace and score, masks and 4-bit quantisers": median_ms(lambda: score_with(model, rules, SHAPE).metrics(), 7),
        "score again after new activation bits": median_ms(reprice),
    }
    lines = ["## Time", "", f"{MODEL} at 224, one thread.", "", "| | ms |", "|---|---:|"]
    return lines + [f"| {name} | {ms:.1f} |" for name, ms in rows.items()]


def process_lines(repeats: int = 5) -> list[str]:
    """Whole processes, interleaved."""
    commands = {
        "import torch and timm, build the model": [sys.executable, "-c", BUILD],
        "the same, and score it": [sys.executable, "-c", f"{BUILD}; {SCORE}"],
        "micronet stage=score": [sys.executable, "-m", "micronet_cli.command.cli", "stage=score", f"model={MODEL}"],
    }
    directory = tempfile.TemporaryDirectory()
    commands["micronet stage=score"].append(f"hydra.run.dir={directory.name}")
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for _ in range(repeats):
        for name, command in commands.items():
            start, used = time.perf_counter(), children_seconds()
            subprocess.run(command, check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
            times[name].append((time.perf_counter() - start, children_seconds() - used))
    medians = {name: [statistics.median(column) for column in zip(*t, strict=True)] for name, t in times.items()}
    first = next(iter(medians.values()))
    lines = ["", f"Whole process, one thread, median of {repeats}, interleaved:", ""]
    lines += ["| | s | ratio | processor s | ratio |", "|---|---:|---:|---:|---:|"]
    for name, (wall, used) in medians.items():
        lines.append(f"| {name} | {wall:.2f} | {wall / first[0]:.2f} | {used:.2f} | {used / first[1]:.2f} |")
    return lines


def children_seconds() -> float:
    """Processor time of finished child processes."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def side_by_side_lines(names: tuple[str, ...]) -> list[str]:
    """What other counters say; they need real tensors."""
    lines = ["## Other counters", "", "Multiply-accumulates (M) and seconds, dense, real tensors, batch of one."]
    lines += ["", "| | this | torch | fvcore | ptflops |", "|---|---:|---:|---:|---:|"]
    for name in names:
        model = timm.create_model(name).eval().requires_grad_(False)
        shape = own_shape(model)
        example = torch.zeros(1, *shape)
        cells = [name]
        for counter in (count_here, count_torch, count_fvcore, count_ptflops):
            start = time.perf_counter()
            macs = counter(model, example)
            seconds = time.perf_counter() - start
            cells.append("not installed" if macs is None else f"{macs / 1e6:,.2f} in {seconds:.2f} s")
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def count_here(model: torch.nn.Module, example: torch.Tensor) -> float:
    """Executed multiplications of convolutions and products."""
    network = Trace(model, example.shape[1:]).read()
    return sum(op.dot.multiplications for op in network.ops if op.dot)


def count_torch(model: torch.nn.Module, example: torch.Tensor) -> float:
    """By torch's FlopCounterMode."""
    with FlopCounterMode(display=False) as counter:
        model(example)
    return counter.get_total_flops() / 2


def count_fvcore(model: torch.nn.Module, example: torch.Tensor) -> float | None:
    """By fvcore, None where it is not installed."""
    if importlib.util.find_spec("fvcore") is None:
        return None
    from fvcore.nn import FlopCountAnalysis

    analysis = FlopCountAnalysis(model, example).unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    return analysis.total()


def count_ptflops(model: torch.nn.Module, example: torch.Tensor) -> float | None:
    """By ptflops, None where it is not installed."""
    if importlib.util.find_spec("ptflops") is None:
        return None
    from ptflops import get_model_complexity_info

    shape = tuple(example.shape[1:])
    return get_model_complexity_info(model, shape, as_strings=False, print_per_layer_stat=False, verbose=False)[0]


def main() -> None:
    """Print the report, and write it where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--per-family", type=int, default=4)
    parser.add_argument("--real", nargs="*", metavar="FAMILY", help="score networks with values; default: all families")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.real is not None:
        print("\n".join(real_lines(arguments.real)))
        return
    header = [
        "# The scorer, measured",
        "",
        f"torch {torch.__version__}, timm {timm.__version__}, Python {sys.version.split()[0]}, CPU.",
        "",
    ]
    lines = [*header, *speed_lines(), *process_lines(), ""]
    lines += [*side_by_side_lines((MODEL, "resnet50", "vit_tiny_patch16_224", "swin_tiny_patch4_window7_224")), ""]
    names = architectures(arguments.per_family)
    lines += architecture_lines([measure(name) for name in names])
    text = "\n".join(lines) + "\n"
    if arguments.output:
        arguments.output.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
