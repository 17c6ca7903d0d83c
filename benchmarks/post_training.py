"""Post-training quantisation of real networks, beside peers on the same images: accuracy, time, memory.

    python benchmarks/post_training.py --data SHARED [--peers brevitas aimet mct] [--seeds 0 1 2] [--images 8]

SHARED holds ``models/`` and ``data/`` as below. EfficientNet-Lite0 is calibrated with 128 of ``even_500.tar``'s images
and judged by 250 others, one image a class; ResNet-20 with 1,024 training images of CIFAR-10, and judged by 5,000 test
images. The images to evaluate are the same for every seed; those to calibrate with are drawn by it. Every method
quantises weights per channel and inputs per tensor, of every layer but the stem, which stays in float.

A row is one command, on one thread: imports, calibration and evaluation included. Finished rows are kept in ``--rows``
with the commit that made them, so that an interrupted benchmark goes on, on another day too: peers' rows stay as long
as ``peers/`` does. ``--finished`` writes the page of what there is. Peers run in virtual environments of their own,
made on demand; ours needs none of them.
"""

import argparse
import os
import platform
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import numpy as np
from finished_rows import ROOT, FinishedRows, Row, commit_of
from markdown_page import write_page
from measured_command import CommandFailed, Cost, measured
from peer_environments import PEERS, python_of, requirements
from post_training_images import SUBJECTS, Images, micronet
from post_training_rows import COLUMNS, Task, fidelity, table, top1

PRESETS = ("default", "block")
# What a row depends on.
OURS = ("src", "conf")
THEIRS = ("benchmarks/peers",)
# Peers share a flow, and the CIFAR ResNet, which needs timm alone.
PEER_PATH = os.pathsep.join([str(ROOT / "benchmarks"), str(ROOT / "src")])


def tasks(given: argparse.Namespace) -> Iterator[Task]:
    """All rows asked for: the first seed of every one, then the next seed."""
    sources = dict.fromkeys(given.presets, commit_of(OURS)) | dict.fromkeys(given.peers, commit_of(THEIRS))
    for seed in given.seeds:
        for network in given.networks:
            for bits in SUBJECTS[network].widths:
                for method, source in sources.items():
                    task = Task(network, *bits, method, seed, source, given.images)
                    if given.widths is None or task.widths in given.widths:
                        yield task


class Bench:
    """Runs tasks.

    Args:
        images: of each network.
        out: where runs and logs go.
        peers: where the environments of peers are.
    """

    def __init__(self, images: dict[str, Images], out: Path, peers: Path) -> None:
        self._images = images
        self._out = out
        self._peers = peers

    def row(self, task: Task) -> Row[Task]:
        """What the task gave, or why it failed."""
        images = self._images[task.network]
        run = self._peer if task.method in PEERS else self._preset
        try:
            cost, logits = run(task, images, self._out / task.name)
        except CommandFailed as error:
            return Row(task, {}, str(error))
        found = fidelity(logits, images.float_logits(), images.labels())
        return Row(task, asdict(found) | asdict(cost))

    def _preset(self, task: Task, images: Images, run: Path) -> tuple[Cost, np.ndarray]:
        calibrate = images.tar(f"calibrate_{task.seed}")
        cost = micronet(
            "stage=ptq",
            [
                *images.arguments(),
                f"data.train={calibrate}",
                f"data.val={calibrate}",  # so that no image is held out
                f"ptq={task.method}",
                f"ptq.images={images.calibrate}",
                "quantize=w4a4",
                f"quantize.weight_bits={task.weight_bits}",
                f"quantize.activation_bits={task.activation_bits}",
                f"seed={task.seed}",
            ],
            run,
        )
        return cost, images.write_logits(run)

    def _peer(self, task: Task, images: Images, run: Path) -> tuple[Cost, np.ndarray]:
        python = python_of(task.method, self._peers)
        logits = run / "logits.npy"
        run.mkdir(parents=True, exist_ok=True)
        values = {
            "model": images.subject.model,
            "weights": images.weights,
            "calibrate": images.pixels(f"calibrate_{task.seed}"),
            "evaluate": images.pixels("evaluate"),
            "weight-bits": task.weight_bits,
            "activation-bits": task.activation_bits,
            "seed": task.seed,
            "logits": logits,
        }
        arguments = [f"--{name}={value}" for name, value in values.items()]
        command = [str(python), "-m", f"peers.{task.method}", *arguments]
        cost = measured(command, run.with_suffix(".log"), PYTHONPATH=PEER_PATH)
        return cost, np.load(logits)


def presets_there(asked: list[str]) -> list[str]:
    """The presets that ``conf/ptq`` has; others are named."""
    there = []
    for preset in asked:
        if (ROOT / "conf" / "ptq" / f"{preset}.yaml").is_file():
            there.append(preset)
        else:
            print(f"ptq={preset}: there is no such preset, it is left out", flush=True)
    return there


def told(rows: Sequence[Row[Task]], images: dict[str, Images]) -> str:
    """What stands above the table."""
    lines = [
        f"One thread of {platform.machine()}; micronet with torch {version('torch')}. A row is one command; processor "
        "time is the user's and the system's of all of it, imports and evaluation included; memory is the peak of its "
        "resident set. Figures are the mean over the seeds ± their standard deviation, of memory the largest.",
        "",
    ]
    for name, of in images.items():
        percent = top1(of.float_logits(), of.labels())
        lines.append(f"- {name} in float: {percent:.2f} % of {of.evaluate} images; {of.calibrate} others calibrate.")
    sources = {row.task.method: row.task.source for row in rows}
    for method, source in sources.items():
        if method in PEERS:
            pinned = ", ".join(requirements(method))
            lines.append(f"- {method}: {pinned}; `benchmarks/peers/{method}.py` at {source}.")
        else:
            lines.append(f"- {method}: `micronet stage=ptq ptq={method}` at {source}.")
    return "\n".join(lines)


def run_all(planned: Sequence[Task], bench: Bench, finished: FinishedRows[Task]) -> None:
    """Run what is not finished, one after the other."""
    done = finished.read()
    left = [task for task in planned if task not in done]
    print(f"{len(planned) - len(left)} of {len(planned)} rows are finished", flush=True)
    for number, task in enumerate(left, 1):
        started = time.perf_counter()
        row = bench.row(task)
        finished.add(row)
        said = row.failed or ", ".join(f"{name} {value:.2f}" for name, value in row.figures.items())
        print(f"{number}/{len(left)} {task.name} ({time.perf_counter() - started:.0f} s): {said}", flush=True)


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with models/ and data/")
    parser.add_argument("--networks", nargs="+", choices=SUBJECTS, default=list(SUBJECTS))
    parser.add_argument("--widths", nargs="+", help="as w4a8; all by default")
    parser.add_argument("--presets", nargs="*", default=list(PRESETS), help="of ptq=")
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=[])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--images", type=int, help="at most so many to calibrate and to evaluate, to try it out")
    parser.add_argument("--finished", action="store_true", help="only write the page of the rows that are finished")
    parser.add_argument("--out", type=Path, default=ROOT / "outputs" / "post_training")
    parser.add_argument("--rows", type=Path, default=ROOT / "benchmarks" / "post_training.jsonl")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "post_training.md")
    return parser.parse_args()


def main() -> None:
    """Run what is not done, write the page."""
    given = arguments()
    given.presets = presets_there(given.presets)
    out = given.out.resolve()
    part = "all" if given.images is None else str(given.images)
    images = {}
    for name in given.networks:
        images[name] = Images(SUBJECTS[name], given.data.resolve(), out / "images" / name / part, given.images)
        images[name].write(given.seeds)
        percent = top1(images[name].float_logits(), images[name].labels())
        print(f"{name} in float: {percent:.2f} % of {images[name].evaluate} images", flush=True)
    finished = FinishedRows(given.rows, Task)
    planned = list(tasks(given))
    if not given.finished:
        for peer in given.peers:
            python_of(peer, out / "peers")  # takes minutes where there is none yet
        run_all(planned, Bench(images, out / "runs" / part, out / "peers"), finished)
    done = finished.read()
    rows = [done[task] for task in planned if task in done]
    write_page(given.output, "Post-training quantisation, measured", told(rows, images), COLUMNS, table(rows))


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("interrupted; the same command goes on with the rows that are left")
