"""Threads that wait go to sleep soon, processes share the cores, and what the environment says is kept."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from micronet_cli.threads import WAITING, cores, share_cores, spin_briefly


@pytest.fixture
def environment(monkeypatch):
    """Sets names of the environment, none by default, for the time of a test."""
    for name in (*WAITING, "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, "to be restored")
        del os.environ[name]
    return monkeypatch.setenv


def test_threads_wait_briefly_for_each_library(environment):
    spin_briefly()
    assert os.environ["GOMP_SPINCOUNT"] == "10000"
    assert os.environ["KMP_BLOCKTIME"] == "1"


@pytest.mark.parametrize("name", WAITING)
def test_a_setting_of_the_environment_is_kept(environment, name):
    environment(name, "7")
    spin_briefly()
    assert {key: os.environ[key] for key in WAITING if key in os.environ} == {name: "7"}


def test_the_library_that_pytorch_uses_reads_it():
    spec = importlib.util.find_spec("torch")
    found = list(Path(spec.origin).parent.glob("lib/libgomp*.so*"))
    if not found:
        pytest.skip("this PyTorch has no OpenMP library of GNU")
    code = (
        "import ctypes\n"
        "from micronet_cli.threads import spin_briefly\n"
        "spin_briefly()\n"
        f"ctypes.CDLL({str(found[0])!r})\n"
    )
    kept = {name: value for name, value in os.environ.items() if name not in WAITING}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=kept | {"OMP_DISPLAY_ENV": "verbose"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "GOMP_SPINCOUNT = '10000'" in done.stderr


def test_processes_share_the_cores(environment):
    share_cores(2 * cores())
    assert os.environ["OMP_NUM_THREADS"] == "1"


def test_one_process_takes_them_all(environment):
    share_cores(1)
    assert os.environ["OMP_NUM_THREADS"] == str(cores())


def test_a_number_of_the_environment_is_kept(environment):
    environment("OMP_NUM_THREADS", "3")
    share_cores(2)
    assert os.environ["OMP_NUM_THREADS"] == "3"
