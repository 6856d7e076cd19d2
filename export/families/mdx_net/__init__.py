"""MDX-Net: kuielab's ConvTDFNet, as UVR's .onnx files and as .ckpt."""
