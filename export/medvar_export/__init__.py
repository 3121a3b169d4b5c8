"""From trained weights in torch to a bundle of ONNX graphs that runs without torch."""
