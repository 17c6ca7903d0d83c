"""A search with ``search.storage``: this run is one of its workers."""

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from micronet_cli.config import to_plain
from micronet_cli.errors import UserError
from micronet_cli.explore.search import Search
from micronet_cli.explore.shared_study import SharedStudy
from micronet_cli.explore.storage import answered
from micronet_cli.explore.study import Study
from micronet_cli.explore.worker import BEATS, Heartbeat, Place
from micronet_cli.passwords import HIDDEN, KEY, WITHOUT_PASSWORD, without_password
from micronet_cli.stages.job import Job

log = logging.getLogger(__name__)
MOST_SECONDS = 2.0  # between two looks at what the others do
# What each worker may have its own way.
OWN = (
    "resume", "debug", "trust", "name", "runs", "init_from", "stage", "search", "logger",
    "data.workers", "data.cache_mb",
    "trainer.device", "trainer.compile", "trainer.checkpoint_minutes", "trainer.log_interval_steps", "trainer.profile",
)  # fmt: skip


def check_storage(search: Search, config: DictConfig) -> None:
    """Take a password out of the config, which the run writes down.

    Raises:
        UserError: it was written in a config; the command has hidden it from Hydra, which keeps a copy.
    """
    if search.storage is None:
        return
    shown = without_password(search.storage)
    if search.storage == shown and f":{HIDDEN}@" in shown:
        raise UserError(f"{KEY}={shown!r}: {WITHOUT_PASSWORD}")
    config.search.storage = shown


@contextmanager
def opened(job: Job) -> Iterator[Study]:
    """The study, shared or this run's own; while it is open, the other workers hear of this one.

    Raises:
        UserError: the storage cannot be reached, or its study is another one.
    """
    search = job.checked["search"]
    if search.storage is None:
        yield Study(search, job.run.claim("study.db"), job.seed)
        return
    # What is refused here is answered before the run has written anything.
    storage = SharedStudy.storage(search)
    file = job.run.directory / "worker"
    was_there = file.exists()
    place = Place(file)
    try:
        with answered(search.storage, opening=True):
            study = SharedStudy(search, storage, place.worker, job.seed, joins(job.config), common_settings(job.config))
    except UserError:
        place.close()
        if not was_there:
            file.unlink()
        raise
    job.run.claim(file)
    try:
        with Heartbeat(study.beat, search.grace_seconds / BEATS):
            yield study
    finally:
        place.close()


def joins(config: DictConfig) -> bool:
    """Whether ``resume=true`` was asked for; a sweep takes it back for a job whose directory is still empty."""
    asked = [config.resume]
    for override in HydraConfig.get().overrides.task:
        key, _, value = override.lstrip("+").partition("=")
        if key == "resume":
            asked.append(value.lower() == "true")
    return asked[-1]


def reached(search: Search) -> Any:
    """A context in which a storage that fails is answered in a line."""
    return nullcontext() if search.storage is None else answered(search.storage)


def common_settings(config: DictConfig) -> dict[str, Any]:
    """Dotted key -> value, of what all workers' trials must have in common."""
    found: dict[str, Any] = {}
    for key, value in _leaves(to_plain(config), ""):
        is_own = any(key == own or key.startswith(f"{own}.") for own in OWN)
        if not is_own:
            found[key] = value
    return found


def _leaves(node: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in node.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{key}.")
        else:
            yield key, value


class Wait:
    """Waiting for trials that others have under way: they may die, and theirs are to be run again."""

    def __init__(self, search: Search) -> None:
        self._seconds = min(MOST_SECONDS, search.grace_seconds / BEATS)
        self._told: set[int] = set()

    def once(self, others: Mapping[int, str]) -> None:
        """A while; what is new among ``others``, number -> who runs it, is logged."""
        for number, worker in others.items():
            if number not in self._told:
                log.info("waiting for trial %d: %s has it", number, worker)
        self._told = set(others)
        time.sleep(self._seconds)
