"""A command that is refused leaves nothing behind: Hydra makes a run's directory before anything is checked."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from micronet_cli.errors import UserError


class FreshPaths(Callback):
    """What Hydra is about to make for a single run, noted before it does.

    Attributes:
        files: its own log and its record of the config, where there is none yet.
        directories: the run's directory and those above it that are not there yet, the innermost first.
    """

    files: ClassVar[list[Path]] = []
    directories: ClassVar[list[Path]] = []

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """Hydra has composed the config and has made nothing yet."""
        directory = Path(config.hydra.run.dir).absolute()
        own = [directory / f"{config.hydra.job.name}.log"]
        if config.hydra.output_subdir:
            own.append(directory / config.hydra.output_subdir)
        FreshPaths.files = [path for path in own if not path.exists()]
        FreshPaths.directories = [path for path in (directory, *directory.parents) if not path.exists()]


@contextmanager
def withdrawn_if_refused() -> Iterator[None]:
    """Where the block ends in a user's mistake and no run has left anything, what Hydra made goes.

    Raises:
        UserError: as the block did.
    """
    try:
        yield
    except UserError:
        _withdraw()
        raise


def _withdraw() -> None:
    fresh = FreshPaths.files
    if not fresh:
        return
    directory = fresh[0].parent
    is_fresh = directory in FreshPaths.directories
    left = set(directory.iterdir()) - set(fresh)
    if is_fresh and left:
        return  # a run began there
    for path in fresh:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    for path in FreshPaths.directories:
        if any(path.iterdir()):
            return
        path.rmdir()
