"""Virtual environments of peers: each has its own packages over the torch and timm that micronet runs with."""

import subprocess
import sys
import sysconfig
from pathlib import Path

FOLDER = Path(__file__).with_name("peers")
PEERS = tuple(sorted(path.stem for path in FOLDER.glob("*.txt")))


def requirements(peer: str) -> list[str]:
    """As ``brevitas==0.13.4``, the peer first."""
    return (FOLDER / f"{peer}.txt").read_text().split()


def python_of(peer: str, folder: Path) -> Path:
    """The interpreter of a peer's environment below ``folder``; it is made unless there is one of these versions."""
    place = folder / peer
    python = place / "bin" / "python"
    installed = place / "installed.txt"
    needed = "\n".join(requirements(peer))
    if installed.is_file() and installed.read_text() == needed:
        return python
    print(f"{peer}: an environment is made in {place}", flush=True)
    subprocess.run([sys.executable, "-m", "venv", "--clear", "--without-pip", str(place)], check=True)
    _show_packages_of_this(place)
    pip = [sys.executable, "-m", "pip", "--python", str(python)]
    subprocess.run([*pip, "install", "--quiet", *requirements(peer)], check=True)
    installed.write_text(needed)
    return python


def _show_packages_of_this(place: Path) -> None:
    """What this environment has, the other finds where it has none of its own: one torch for all, and no GB again."""
    variables = {"base": str(place), "platbase": str(place)}
    own = Path(sysconfig.get_path("purelib", vars=variables))
    shared = sysconfig.get_path("purelib")
    (own / "micronets.pth").write_text(f"{shared}\n")
