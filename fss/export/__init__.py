"""Models as graphs for other runtimes: ONNX and torch.export, and evaluation through ONNX Runtime."""
