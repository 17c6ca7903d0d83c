"""A command's start and end do without the collector; what it computes in between, and how it ends, stay Python's."""

import gc
import subprocess
import sys

import pytest

from micronet_cli.housekeeping import collect_from_here, collected_later

ENDING = """
from micronet_cli.housekeeping import ends_with, leave_memory_to_the_system
leave_memory_to_the_system()
import atexit, sys, threading, time
from concurrent.futures import ThreadPoolExecutor

def work():
    time.sleep(0.2)
    print("worked")

atexit.register(print, "handled")
threading.Thread(target=work).start()
ThreadPoolExecutor(1).submit(len, ())
sys.stdout.write("written, ")
ends_with(7)
raise SystemExit(7)
"""


@pytest.fixture(autouse=True)
def _collector_is_on():
    yield
    gc.enable()


def test_the_collector_rests_until_the_work_begins():
    with collected_later():
        assert not gc.isenabled()
        collect_from_here()
        assert gc.isenabled()
    assert gc.isenabled()


def test_the_collector_is_on_after_what_ended_before_its_work():
    with pytest.raises(ValueError, match="refused"), collected_later():
        raise ValueError("refused")
    assert gc.isenabled()


def test_a_collector_that_is_off_stays_off():
    gc.disable()
    with collected_later():
        collect_from_here()
        assert not gc.isenabled()
    assert not gc.isenabled()


def test_later_commands_of_a_process_freeze_nothing():
    """Garbage among it would stay."""
    with collected_later():
        collect_from_here()
    frozen = gc.get_freeze_count()
    garbage = [[number] for number in range(1000)]
    with collected_later():
        collect_from_here()
    assert gc.get_freeze_count() <= frozen
    assert len(garbage) == 1000


def test_threads_exit_handlers_and_output_are_waited_for():
    done = subprocess.run([sys.executable, "-c", ENDING], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 7
    assert done.stdout == "written, worked\nhandled\n"
    assert done.stderr == ""


def test_an_error_that_nobody_expected_is_told():
    code = "from micronet_cli.housekeeping import leave_memory_to_the_system as last; last(); 1 / 0"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr


@pytest.mark.parametrize(
    ("argument", "status"), [pytest.param("--help", 0, id="help"), pytest.param("stag=x", 2, id="a mistake")]
)
def test_a_command_ends_with_its_status(argument, status):
    command = [sys.executable, "-m", "micronet_cli.command.cli", argument]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == status
    assert "Traceback" not in done.stderr
