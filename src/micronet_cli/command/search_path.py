"""Where Hydra finds config options: the user's directory, then the packaged ones, then any timm name as a model.

Torch is not imported here; whether a timm name exists is the config check's to say.
"""

from pathlib import Path

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.object_type import ObjectType
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigResult, ConfigSource
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import OmegaConf

from micronet_cli.errors import UserError
from micronet_cli.paths import CONF, use_config_directory

PREFIX = "model/"


class TimmConfigSource(ConfigSource):
    """Every ``model/<name>`` exists here; a YAML earlier on the search path wins."""

    @staticmethod
    def scheme() -> str:
        """What ``timm://`` begins with."""
        return "timm"

    def load_config(self, config_path: str) -> ConfigResult:
        """The model group for the name."""
        name = config_path.removeprefix(PREFIX).removesuffix(".yaml")
        node = OmegaConf.load(CONF / "model" / "timm.yaml")
        node.name = name
        header: dict[str, str | None] = {"package": None}
        return ConfigResult(provider=self.provider, path="timm://", config=node, header=header)

    def available(self) -> bool:
        """Always."""
        return True

    def is_group(self, config_path: str) -> bool:
        """No groups of its own."""
        return False

    def is_config(self, config_path: str) -> bool:
        """Any name below ``model/``."""
        return config_path.startswith(PREFIX) and len(config_path) > len(PREFIX)

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        """Nothing: naming them all would need timm."""
        return []


class MicronetSearchPath(SearchPathPlugin):
    """The order above. Hydra's own ``--config-dir`` comes after the packaged options: it could add but not shadow."""

    user: Path | None = None

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Put the user's directory first and timm last."""
        if self.user is not None:
            search_path.prepend(provider="user", path=f"file://{self.user.resolve()}", anchor="main")
        search_path.append(provider="timm", path="timm://")


def register(user: Path | None = None) -> None:
    """Make both known to Hydra, with the user's config directory where there is one.

    Raises:
        UserError: it is no directory.
    """
    if user is not None and not user.is_dir():
        raise UserError(f"--config-dir {user}: no such directory")
    MicronetSearchPath.user = user
    use_config_directory(user)
    for plugin in (TimmConfigSource, MicronetSearchPath):
        Plugins.instance().register(plugin)
