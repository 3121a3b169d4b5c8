"""MedVAR: synthetic CT and MR slices by next-scale prediction (arXiv 2602.14512).

Importing this package loads neither torch, onnxruntime nor Qt; each is imported where it is used.
"""

__version__ = "0.1.0"
