"""Guards output whose reader has left: nothing is raised, what comes later goes nowhere, and the run goes on."""

import os
import subprocess
import sys

import pytest

from micronet_cli.console import UnreadOutput, go_on_unread


@pytest.fixture
def pipe():
    """A text stream into a pipe, and the pipe's reading end."""
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as stream:
        yield UnreadOutput(stream), reading


def test_output_that_is_read_arrives(pipe):
    output, reading = pipe
    assert output.write("one\n") == 4
    output.flush()
    assert os.read(reading, 100) == b"one\n"
    assert output.writable()
    os.close(reading)


def test_output_that_nobody_reads_goes_nowhere(pipe):
    output, reading = pipe
    os.close(reading)
    assert output.write("x" * 100_000) == 100_000  # more than a buffer holds
    output.write("more")
    output.flush()


def test_only_the_process_s_own_output_is_replaced(capsys):
    before = sys.stdout
    go_on_unread()
    assert sys.stdout is before


def test_command_goes_on_when_its_reader_leaves():
    code = (
        "import logging, sys; from micronet_cli.console import go_on_unread; go_on_unread()\n"
        "logging.basicConfig(level=logging.INFO, stream=sys.stdout)\n"
        "for number in range(3000): logging.info('a line'); print('another')\n"
        "print('to the end', file=sys.stderr)"
    )
    command = f'"{sys.executable}" -c "{code}" | head -1'
    done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "INFO:root:a line\n" or done.stdout == "another\n"
    assert done.stderr == "to the end\n"
