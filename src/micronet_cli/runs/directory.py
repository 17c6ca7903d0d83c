"""A run's directory: what is in it, and writes that are whole or absent."""

import csv
import io
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from micronet_cli.runs.loggers import Tracker
from micronet_cli.strict_json import json_text

# A hidden file with the names of what the run has written, a line each: what a fresh run in the directory sets aside.
NOTE = ".written"
# Version 0.1.0 kept no such note; these are the names that it wrote, and it left a config.yaml or a metrics.json.
NAMES_OF_0_1_0 = (
    "metrics.json", "history.jsonl", "layers.csv", "summary.csv", "summary.json", "score.png", "profile.json",
    "study.db", "tensorboard", "checkpoints", "resume", "config.yaml", "traceback.txt", "model.mnet", "model.onnx",
    "model.int8.onnx", "export.json", "report.html", "sensitivity.csv", "sensitivity.png", "rules",
)  # fmt: skip


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file that is whole or, where something goes wrong, what it was before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


class Run:
    """One run's directory.

    Attributes:
        directory: where everything goes.
        resume: go on from the state that is there, if there is one.
        writes: False in all processes of a run but one; their writes do nothing.
    """

    def __init__(self, directory: Path, resume: bool = False, writes: bool = True) -> None:
        self.directory, self.resume, self.writes = directory, resume, writes
        self.tracker: Tracker | None = None
        self._claimed: set[str] = set()
        if writes:
            directory.mkdir(parents=True, exist_ok=True)
            if not resume:
                set_aside(directory)

    @property
    def best(self) -> Path:
        """The network that is reported."""
        return self.directory / "checkpoints" / "best.safetensors"

    @property
    def last(self) -> Path:
        """The network after the newest epoch."""
        return self.directory / "checkpoints" / "last.safetensors"

    @property
    def packed(self) -> Path:
        """The packed network."""
        return self.directory / "model.mnet"

    @property
    def state(self) -> Path:
        """All that a resumed run needs."""
        return self.directory / "resume" / "state.pt"

    def claim(self, name: str | Path) -> Path:
        """Note that the run is about to write ``name``, for files that others write; its path.

        Args:
            name: a name relative to the run's directory, or a whole path below it, as ``best``.
        """
        path = name if isinstance(name, Path) else self.directory / name
        first = path.relative_to(self.directory).parts[0]
        if self.writes and first not in self._claimed:
            noted = {found.name for found in own_paths(self.directory)} - {NOTE}
            # Names that are noted and not written yet stay: another process may be about to.
            noted |= set(_noted(self.directory) or ()) | {first}
            text = "".join(f"{each}\n" for each in sorted(noted))
            write_bytes(self.directory / NOTE, text.encode())
            self._claimed.add(first)
        return path

    def write_bytes(self, name: str, content: bytes) -> None:
        """Write ``name`` into the directory."""
        if self.writes:
            write_bytes(self.claim(name), content)

    def write_json(self, name: str, value: Mapping[str, Any]) -> None:
        """Write ``name`` into the directory."""
        self.write_text(name, json_text(value, indent=1) + "\n")

    def write_text(self, name: str, text: str) -> None:
        """Write ``name`` into the directory."""
        self.write_bytes(name, text.encode())

    def write_csv(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write rows under the union of their keys."""
        text = io.StringIO()
        writer = csv.DictWriter(text, list(dict.fromkeys(key for row in rows for key in row)), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        self.write_text(name, text.getvalue())

    def metrics(self) -> dict[str, Any]:
        """What metrics.json holds; empty where there is none."""
        path = self.directory / "metrics.json"
        return json.loads(path.read_text()) if path.is_file() else {}

    def record(self, line: Mapping[str, Any]) -> None:
        """Append a line to history.jsonl, and to the tracker where there is one."""
        if self.writes:
            with self.claim("history.jsonl").open("a") as file:
                file.write(json_text(line) + "\n")
            if self.tracker is not None:
                kind, step = line["kind"], line["step"]
                numbers = {f"{kind}/{key}": v for key, v in line.items() if isinstance(v, float) and key != "step"}
                self.tracker.log(numbers, step)

    def rewind_history(self, keep: Callable[[Mapping[str, Any]], bool]) -> None:
        """Drop the lines of work that is about to be done again, and a line cut short by a crash."""
        path = self.directory / "history.jsonl"
        if self.writes and path.is_file():
            kept = (line for line in path.read_text().splitlines() if _kept(line, keep))
            self.write_text(path.name, "".join(f"{line}\n" for line in kept))


def _kept(line: str, keep: Callable[[Mapping[str, Any]], bool]) -> bool:
    try:
        return keep(json.loads(line))
    except json.JSONDecodeError:
        return False


def own_paths(directory: Path) -> list[Path]:
    """What an earlier run wrote into ``directory`` and is still there, the note of it last."""
    noted = _noted(directory)
    if noted is not None:
        paths = [directory / name for name in noted]
        return [path for path in paths if path.exists()] + [directory / NOTE]
    if not ((directory / "config.yaml").is_file() or (directory / "metrics.json").is_file()):
        return []
    # Step and job directories of version 0.1.0, as a pipeline's 2_prune and a search's 7; a date is none.
    numbered = re.compile(r"\d+(_\D.*)?")
    found = []
    for path in directory.iterdir():
        if path.name in NAMES_OF_0_1_0 or (path.is_dir() and numbered.fullmatch(path.name)):
            found.append(path)
    return found


def _noted(directory: Path) -> list[str] | None:
    """The names in the directory's note; None where there is no note."""
    note = directory / NOTE
    return note.read_text().splitlines() if note.is_file() else None


def set_aside(directory: Path) -> None:
    """Move an earlier run's files to ``previous/``; what ``previous/`` held goes one level deeper."""
    found = own_paths(directory)
    if not found:
        return
    previous = directory / "previous"
    parked = directory / ".previous"
    # A crash between two of these steps leaves the earlier one parked: it goes on from there.
    if previous.exists() and not parked.exists():
        previous.rename(parked)
    previous.mkdir(exist_ok=True)
    if parked.exists():
        parked.rename(previous / "previous")
    for path in found:
        shutil.move(path, previous / path.name)
