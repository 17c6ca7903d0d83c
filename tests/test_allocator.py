"""Memory is asked for before the first tensor, and a user's own wish is kept."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from micronet_cli.allocator import (
    BoundedGrowth,
    give_back_freed_memory,
    keep_freed_memory,
    resident_bytes,
    share_freed_memory,
    use_huge_pages,
)

NAME = "THP_MEM_ALLOC_ENABLE"
MODE = Path("/sys/kernel/mm/transparent_hugepage/enabled")


@pytest.mark.parametrize(
    ("given", "kept"), [pytest.param(None, "1", id="unset"), pytest.param("0", "0", id="switched off")]
)
def test_a_wish_of_the_environment_is_kept(monkeypatch, given, kept):
    monkeypatch.setenv(NAME, "to be restored")
    del os.environ[NAME]
    if given:
        os.environ[NAME] = given
    use_huge_pages()
    assert os.environ[NAME] == kept


@pytest.mark.skipif(not MODE.is_file() or "[never]" in MODE.read_text(), reason="this system has no huge pages")
def test_large_tensors_lie_in_huge_pages():
    code = (
        "from micronet_cli.allocator import keep_freed_memory, use_huge_pages; use_huge_pages(); import torch\n"
        "x = torch.ones(1 << 25); print(open('/proc/self/smaps_rollup').read())"
    )
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    (kilobytes,) = [int(line.split()[1]) for line in out.splitlines() if line.startswith("AnonHugePages")]
    assert kilobytes > 0


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_only_linux_is_asked_to_keep_memory(monkeypatch, platform):
    monkeypatch.setattr(sys, "platform", platform)
    assert keep_freed_memory() is False


def test_another_c_library_is_no_error(monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr("ctypes.CDLL", lambda _: object())
    assert keep_freed_memory() is False


def test_what_is_kept_goes_back_once_the_process_has_grown():
    code = (
        "import torch\nfrom micronet_cli.allocator import BoundedGrowth, keep_freed_memory, resident_bytes\n"
        "assert keep_freed_memory()\n"
        "growth, before = BoundedGrowth(1 << 27), resident_bytes()\n"
        "def kept(size):\n"
        "    gap, above = torch.ones(size >> 2), torch.ones(1 << 10)\n"
        "    del gap; growth.check(); return resident_bytes() - before >> 20\n"
        "print(kept(1 << 26), kept(1 << 28))"
    )
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    little, much = map(int, out.split())
    assert little > 50  # of 64 MiB
    assert much < 50  # of 256 MiB more


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_only_linux_is_asked_to_give_memory_back(monkeypatch, platform):
    monkeypatch.setattr(sys, "platform", platform)
    assert not give_back_freed_memory()


def test_a_system_that_tells_no_size_is_no_error(monkeypatch, tmp_path):
    monkeypatch.setattr("micronet_cli.allocator.STATM", tmp_path / "nowhere")
    assert resident_bytes() == 0
    BoundedGrowth(1).check()


def test_threads_share_one_heap():
    code = (
        "import threading, torch; from micronet_cli.allocator import share_freed_memory; assert share_freed_memory()\n"
        "gate = threading.Barrier(9)\n"
        "def work():\n"
        "    kept = [torch.ones(1 << 12) for _ in range(99)]; gate.wait()\n"
        "    print(len(kept)); gate.wait()\n"
        "for _ in range(8): threading.Thread(target=work).start()\n"
        "gate.wait(); text = open('/proc/self/maps').read(); gate.wait()\n"
        "import ctypes; ctypes.CDLL(None).malloc_stats()"
    )
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stderr
    arenas = [line for line in said.splitlines() if line.startswith("Arena")]
    assert arenas == ["Arena 0:"]


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_only_linux_is_asked_to_share_memory(monkeypatch, platform):
    monkeypatch.setattr(sys, "platform", platform)
    assert not share_freed_memory()
