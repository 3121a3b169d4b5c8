"""Exports trained weights to a bundle of ONNX graphs, which runs without torch."""
