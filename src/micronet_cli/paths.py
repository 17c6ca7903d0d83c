"""Where the packaged config groups lie: beside the package in a wheel, at the top of a checkout."""

from pathlib import Path

_HERE = Path(__file__).resolve()
CONF = next(path for path in (_HERE.parent / "conf", _HERE.parents[2] / "conf") if (path / "config.yaml").is_file())
