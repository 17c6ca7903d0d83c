"""Guards what a command is said to cost: its own time and memory, not its parent's."""

import sys

import pytest
from measured_command import CommandFailed, measured


def test_memory_and_time_are_those_of_the_command(tmp_path):
    code = "import time; held = b'1' * (200 << 20)\nwhile time.process_time() < 0.2: pass"
    cost = measured([sys.executable, "-c", code], tmp_path / "log")
    assert cost.peak_mb > 200
    assert 0.2 <= cost.processor_seconds < 5


def test_process_that_the_command_waits_for_counts(tmp_path):
    inner = "import time\nwhile time.process_time() < 0.2: pass"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {inner!r}], check=True)"
    assert measured([sys.executable, "-c", code], tmp_path / "log").processor_seconds >= 0.2


def test_failure_is_the_last_line_that_the_command_wrote(tmp_path):
    with pytest.raises(CommandFailed, match=r"^ValueError: seven$"):
        measured([sys.executable, "-c", "raise ValueError('seven')"], tmp_path / "log")
    with pytest.raises(CommandFailed, match=r"^ended with 3$"):
        measured([sys.executable, "-c", "import sys; sys.exit(3)"], tmp_path / "log")


def test_command_runs_on_one_thread_and_sees_the_variables(tmp_path):
    code = "import os; print(os.environ['OMP_NUM_THREADS'], os.environ['PLACE'])"
    measured([sys.executable, "-c", code], tmp_path / "log", PLACE="here")
    assert (tmp_path / "log").read_text() == "1 here\n"
