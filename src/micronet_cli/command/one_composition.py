"""A run composes its config once.

Hydra composes it to see what ``hydra.mode`` in it says, run or sweep, throws it away, and composes it again to run. A
composition takes a tenth of a second or two, about half of what a refused command takes once torch is imported.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from hydra._internal import hydra as hydra_module  # there is no public door to what Hydra composes with
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig

from micronet_cli.command.passwords import hide_configured


class ComposeOnce(ConfigLoaderImpl):
    """Hydra's own loader, which keeps the config that it composed to see the mode for the run that may follow."""

    kept: DictConfig | None = None

    def load_configuration(
        self,
        config_name: str | None,
        overrides: list[str],
        run_mode: RunMode,
        from_shell: bool = True,
        validate_sweep_overrides: bool = True,
    ) -> DictConfig:
        """What Hydra would compose, and write down: without a password."""
        config = self._composed(config_name, overrides, run_mode, from_shell, validate_sweep_overrides)
        hide_configured(config)
        return config

    def _composed(
        self, config_name: str | None, overrides: list[str], run_mode: RunMode, from_shell: bool, validate: bool
    ) -> DictConfig:
        kept, self.kept = self.kept, None
        if kept is not None and run_mode == RunMode.RUN:
            return kept
        only_for_the_mode = not validate
        if only_for_the_mode:
            # As a run's; where that is refused it may be a sweep's, which allows for more.
            with suppress(HydraException):
                self.kept = super().load_configuration(config_name, overrides, RunMode.RUN, from_shell)
                return self.kept
        return super().load_configuration(config_name, overrides, run_mode, from_shell, validate)


@contextmanager
def composed_once() -> Iterator[None]:
    """In this block Hydra composes with the loader above."""
    in_hydra: Any = hydra_module
    in_hydra.ConfigLoaderImpl = ComposeOnce
    try:
        yield
    finally:
        in_hydra.ConfigLoaderImpl = ConfigLoaderImpl
