"""What ``make setup`` would install, without installing it."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def constraints(tmp_path):
    """The lines that the recipe for TORCH=cpu takes its versions from, made in a copy of the project's top level."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt", "constraints-cpu.txt"):
        shutil.copy(ROOT / name, tmp_path)
    done = subprocess.run(
        ["make", "setup", "TORCH=cpu", "--dry-run"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    recipe = done.stdout.splitlines()
    (tmp_path / ".venv").mkdir()
    writing = next(line for line in recipe if line.startswith("grep"))
    subprocess.run(writing, shell=True, cwd=tmp_path, check=True)
    installing = next(line for line in recipe if "pip install" in line)
    named = re.search(r"--constraint (\S+)", installing)[1]
    return (tmp_path / named).read_text().splitlines()


def test_a_cpu_installation_names_builds_without_cuda_alone(constraints):
    torch_lines = [line for line in constraints if line.startswith(("torch==", "torchvision=="))]
    assert len(torch_lines) == 2
    assert all(line.endswith("+cpu") for line in torch_lines)
    assert not any(line.startswith(("nvidia", "cuda", "triton")) for line in constraints)


def test_a_cpu_installation_keeps_all_other_versions(constraints):
    others = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line]
    is_cuda = re.compile(r"(torch|torchvision|triton|cuda-|nvidia-)")
    kept = {line for line in others if not is_cuda.match(line)}
    assert kept <= set(constraints)
