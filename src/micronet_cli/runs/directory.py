"""A run's directory: what is in it, and writes that are whole or absent."""

import csv
import io
import json
import os
import re
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from micronet_cli.runs.loggers import Tracker

# A hidden file with the names of what the run has written, a line each: what a fresh run in the directory sets aside.
NOTE = ".written"
# What a run writes before its work begins.
PREPARATIONS = ("config.yaml", "layers.csv")
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
        self.directory = directory
        self.resume = resume
        self.writes = writes
        self.tracker: Tracker | None = None
        self._claimed: set[str] = set()
        self._made = writes and not directory.exists()
        self._set_aside = False
        if writes:
            directory.mkdir(parents=True, exist_ok=True)
            if not resume:
                self._set_aside = set_aside(directory)

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

    def is_prepared_only(self, other_preparations: Collection[str] = ()) -> bool:
        """Whether all that this run has written is written before a run's work: ``PREPARATIONS`` and such others."""
        written = {name for name in self._claimed if (self.directory / name).exists()}
        return written <= {*PREPARATIONS, *other_preparations}

    def withdraw(self) -> None:
        """Leave the directory as it was found, for a run that is refused; one that resumes leaves it as it is."""
        if not self.writes or self.resume:
            return
        for path in own_paths(self.directory):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
        if self._set_aside:
            put_back(self.directory)
        if self._made and not any(self.directory.iterdir()):
            self.directory.rmdir()

    def claim(self, name: str | Path) -> Path:
        """Note that the run is about to write ``name``, for files that others write; its path.

        Args:
            name: a name relative to the run's directory, or a whole path below it, as ``best``.
        """
        path = name if isinstance(name, Path) else self.directory / name
        if self.writes:
            inside = path.relative_to(self.directory)
            self._note(inside.parts[0])
        return path

    def _note(self, name: str) -> None:
        """Add a name to the directory's note."""
        if name in self._claimed:
            return
        names = {name}
        names.update(found.name for found in own_paths(self.directory))
        # Names that are noted and not written yet stay: another process may be about to.
        names.update(_noted(self.directory) or ())
        names.discard(NOTE)
        text = "".join(f"{each}\n" for each in sorted(names))
        write_bytes(self.directory / NOTE, text.encode())
        self._claimed.add(name)

    def write_bytes(self, name: str, content: bytes) -> None:
        """Write ``name`` into the directory."""
        if self.writes:
            write_bytes(self.claim(name), content)

    def write_json(self, name: str, value: Mapping[str, Any]) -> None:
        """Write ``name`` into the directory."""
        text = json.dumps(value, indent=1, default=str)
        self.write_text(name, text + "\n")

    def write_text(self, name: str, text: str) -> None:
        """Write ``name`` into the directory."""
        self.write_bytes(name, text.encode())

    def write_csv(self, name: str, rows: Sequence[Mapping[str, Any]], columns: Sequence[str] = ()) -> None:
        """Write rows under the union of their keys; ``columns`` come first, also without a row."""
        keys = dict.fromkeys(columns)  # a set in order of appearance
        for row in rows:
            keys |= dict.fromkeys(row)
        text = io.StringIO()
        writer = csv.DictWriter(text, list(keys), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        self.write_text(name, text.getvalue())

    def metrics(self) -> dict[str, Any]:
        """What metrics.json holds; empty where there is none."""
        path = self.directory / "metrics.json"
        if not path.is_file():
            return {}
        return json.loads(path.read_text())

    def record(self, line: Mapping[str, Any]) -> None:
        """Append a line to history.jsonl, and to the tracker where there is one."""
        if not self.writes:
            return
        with self.claim("history.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
        if self.tracker is not None:
            self.tracker.log(_numbers(line), line["step"])

    def rewind_history(self, keep: Callable[[Mapping[str, Any]], bool]) -> None:
        """Drop the lines of work that is about to be done again, and a line cut short by a crash."""
        path = self.directory / "history.jsonl"
        if not self.writes or not path.is_file():
            return
        lines = path.read_text().splitlines()
        kept = [f"{line}\n" for line in lines if _kept(line, keep)]
        self.write_text(path.name, "".join(kept))


def _numbers(line: Mapping[str, Any]) -> dict[str, float]:
    """What a tracker gets of a history line: its numbers, named after the line's kind."""
    numbers = {}
    for key, value in line.items():
        if key != "step" and isinstance(value, float):
            numbers[f"{line['kind']}/{key}"] = value
    return numbers


def _kept(line: str, keep: Callable[[Mapping[str, Any]], bool]) -> bool:
    try:
        return keep(json.loads(line))
    except json.JSONDecodeError:
        return False


def own_paths(directory: Path) -> list[Path]:
    """What an earlier run wrote into ``directory`` and is still there, the note of it last."""
    noted = _noted(directory)
    if noted is None:
        return _own_paths_of_0_1_0(directory)
    paths = [directory / name for name in noted]
    there = [path for path in paths if path.exists()]
    return [*there, directory / NOTE]


def _own_paths_of_0_1_0(directory: Path) -> list[Path]:
    used = (directory / "config.yaml").is_file() or (directory / "metrics.json").is_file()
    if not used:
        return []
    # Step and job directories, as a pipeline's 2_prune and a search's 7; a date is none.
    numbered = re.compile(r"\d+(_\D.*)?")
    found = []
    for path in directory.iterdir():
        is_job = path.is_dir() and numbered.fullmatch(path.name)
        if is_job or path.name in NAMES_OF_0_1_0:
            found.append(path)
    return found


def _noted(directory: Path) -> list[str] | None:
    """The names in the directory's note; None where there is no note."""
    note = directory / NOTE
    if not note.is_file():
        return None
    return note.read_text().splitlines()


def set_aside(directory: Path) -> bool:
    """Move an earlier run's files to ``previous/``, what that held one level deeper; whether there were any."""
    found = own_paths(directory)
    if not found:
        return False
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
    return True


def put_back(directory: Path) -> None:
    """Undo ``set_aside``."""
    previous = directory / "previous"
    parked = directory / ".previous"
    earlier = previous / "previous"
    if earlier.exists():
        earlier.rename(parked)
    for path in previous.iterdir():
        shutil.move(path, directory / path.name)
    previous.rmdir()
    if parked.exists():
        parked.rename(previous)
