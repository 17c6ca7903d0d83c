"""Where the packaged config groups lie: beside the package in a wheel, at the top of a checkout."""

from pathlib import Path


def _packaged_configs() -> Path:
    here = Path(__file__).resolve()
    in_wheel = here.parent / "conf"
    in_checkout = here.parents[2] / "conf"
    if (in_wheel / "config.yaml").is_file():
        return in_wheel
    return in_checkout


CONF = _packaged_configs()
# Where config groups are looked for: the user's own directory (--config-dir), where there is one, before the packaged.
CONFIG_DIRECTORIES = [CONF]


def use_config_directory(user: Path | None) -> None:
    """Look for config groups in ``user`` too; None: in the packaged ones alone."""
    directories = [CONF]
    if user is not None:
        directories.insert(0, user)
    CONFIG_DIRECTORIES[:] = directories
