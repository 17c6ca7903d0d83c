"""What leaves the project: packed files, their runtime, ONNX."""
