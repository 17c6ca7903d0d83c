"""``model=<any timm name>`` without a YAML of its own: a Hydra config source at the end of the search path.

Torch is not imported here; whether the name exists is the config check's to say.
"""

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.object_type import ObjectType
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigResult, ConfigSource
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import OmegaConf

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
        node = OmegaConf.create({"_target_": "micronet_cli.models.model.Model", "name": name})
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


class TimmSearchPath(SearchPathPlugin):
    """Puts the source last."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Append it."""
        search_path.append(provider="timm", path="timm://")


def register() -> None:
    """Make both known to Hydra."""
    for plugin in (TimmConfigSource, TimmSearchPath):
        Plugins.instance().register(plugin)
