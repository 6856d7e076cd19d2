"""Building and saving ONNX graphs."""
