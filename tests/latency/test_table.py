"""The terminal's table and a run's metrics, from rows made by hand."""

from micronet_cli.latency.table import metrics, shown


def row(network, engine, milliseconds, batch_size=1, **more):
    return {
        "network": network, "file": "", "engine": engine, "batch_size": batch_size, "threads": 1,
        "latency_ms": milliseconds, "first_quartile_ms": milliseconds - 1, "third_quartile_ms": milliseconds + 1,
        "images_per_second": 1000 * batch_size / milliseconds, "latency_ratio": 8 / milliseconds, "engine_ratio": 1.0,
        "rounds": 5, "peak_memory_bytes": None, "file_bytes": 2**20,
    } | more  # fmt: skip


ROWS = [
    row("dense", "pytorch", 16.0),
    row("dense", "onnxruntime", 8.0),
    row("compressed", "pytorch", 20.0),
    row("compressed", "onnxruntime", 4.0, file="model.onnx", peak_memory_bytes=3 * 2**20),
    row("compressed", "onnxruntime", 1.0, batch_size=32),
]


def test_metrics_are_of_the_fastest_row_of_the_network():
    found = metrics(ROWS, 1, 1)
    assert (found["latency_ms"], found["latency_ratio"], found["latency_engine"]) == (4.0, 2.0, "onnxruntime")
    assert (found["latency_file"], found["latency_peak_memory_bytes"]) == ("model.onnx", 3 * 2**20)
    assert (found["dense_latency_ms"], found["dense_latency_engine"]) == (8.0, "onnxruntime")


def test_a_dense_network_alone_is_its_own_reference():
    assert metrics(ROWS[:2], 1, 1)["latency_ms"] == 8.0


def test_no_row_of_that_batch_size_is_no_metric():
    assert metrics(ROWS, 64, 1) == {}


def test_table_holds_what_there_is():
    line = shown(ROWS)[3]
    assert (line["ms"], line["quartiles"], line["images/s"]) == ("4.00", "3.00-5.00", "250.0")
    assert (line["times faster"], line["peak MiB"], line["file MiB"]) == ("2.00", "3", "1.00")
    assert shown(ROWS)[0]["file"] == "-"
