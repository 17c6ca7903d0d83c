"""Where the packaged config groups lie: beside the package in a wheel, at the top of a checkout."""

from pathlib import Path

_HERE = Path(__file__).resolve()
CONF = next(path for path in (_HERE.parent / "conf", _HERE.parents[2] / "conf") if (path / "config.yaml").is_file())
# Where config groups are looked for: the user's own directory (--config-dir), where there is one, before the packaged.
CONFIG_DIRECTORIES = [CONF]


def use_config_directory(user: Path | None) -> None:
    """Look for config groups in ``user`` too; None: in the packaged ones alone."""
    CONFIG_DIRECTORIES[:] = [CONF] if user is None else [user, CONF]
