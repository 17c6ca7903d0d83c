"""Engines of a made-up clock: how long a network takes is what its source says."""

import numpy as np

from micronet_cli.artifact.engines.engine import Operation


class Clock:
    """Tells the seconds that calls have taken."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


class FakeEngine:
    """Opens a path whose stem is the seconds that a run takes; ``broken.onnx`` cannot be opened."""

    package = "nothing"
    extra = ""
    suffixes = (".onnx",)

    def __init__(self, name, clock, factor=1.0):
        self.name = name
        self.clock = clock
        self.factor = factor
        self.runs = []

    def installed(self):
        return True

    def open(self, source, threads, shape=None):
        if source.stem == "broken":
            raise RuntimeError("no kernel for this\nand more")
        return FakeOpened(self, self.factor * float(source.stem))

    def profile(self, source, threads, images, runs):
        milliseconds = 1000 * self.factor * float(source.stem)
        return [Operation("first/conv", "Conv", milliseconds / 4), Operation("second/mul", "Mul", milliseconds * 3 / 4)]


class FakeOpened:
    def __init__(self, engine, seconds):
        self.engine = engine
        self.seconds = seconds

    def run(self, images):
        self.engine.runs.append(self.seconds)
        self.engine.clock.now += self.seconds
        return np.zeros((len(images), 3), np.float32)
