"""ONNX graphs: what a model file holds, sessions and execution providers."""
