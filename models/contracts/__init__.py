"""What is known of other people's ONNX files: their tensors, and all that these don't say of how they are to be run."""
