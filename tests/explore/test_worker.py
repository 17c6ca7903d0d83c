"""A worker's hold on its directory, its beat, and when another one takes it for dead."""

import subprocess
import sys
import threading

import pytest

from micronet_cli.errors import UserError
from micronet_cli.explore.worker import Heartbeat, Place, Silence, Worker

HOLD = """
import sys
from pathlib import Path
from micronet_cli.explore.worker import Place
place = Place(Path(sys.argv[1]))
print(place.worker.id, flush=True)
sys.stdin.read()
"""


def test_a_directory_has_one_living_worker_and_keeps_its_identity(tmp_path):
    file = tmp_path / "worker"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", HOLD, str(file)], **pipes) as process:
        known = process.stdout.readline().strip()
        with pytest.raises(UserError, match=r"hydra\.run\.dir=.*: another worker is at work there"):
            Place(file)
        process.kill()
    place = Place(file)
    assert place.worker.id == known == file.read_text()
    assert place.worker.directory == str(tmp_path)
    place.close()


def test_beats_differ():
    worker = Worker("a", "/run")
    first, second = worker.record(), worker.record()
    assert first["beat"] != second["beat"]
    assert first | {"beat": 0} == second | {"beat": 0}


def test_silent_is_who_has_the_same_beat_for_the_whole_time():
    now = [0.0]
    silence = Silence(10, clock=lambda: now[0])
    assert not silence.is_silent("a", None)
    now[0] = 9.0
    assert not silence.is_silent("a", None)
    assert not silence.is_silent("b", 1)  # heard of for the first time
    now[0] = 10.0
    assert silence.is_silent("a", None)
    assert not silence.is_silent("b", 2)
    now[0] = 19.0
    assert not silence.is_silent("b", 2)
    now[0] = 20.0
    assert silence.is_silent("b", 2)
    assert not silence.is_silent("b", 3)


def test_heart_beats_at_once_and_on_through_failures():
    beats = []
    enough = threading.Event()

    def beat():
        beats.append(1)
        if len(beats) == 2:
            raise ConnectionError
        if len(beats) == 4:
            enough.set()

    heart = Heartbeat(beat, 0.001)
    with heart:
        assert beats
        assert enough.wait(30)
    number = len(beats)
    assert not heart._thread.is_alive()
    assert len(beats) == number


def test_a_heart_that_cannot_begin_says_so():
    def beat():
        raise ConnectionError

    with pytest.raises(ConnectionError), Heartbeat(beat, 1):
        pass
