"""The napari plugin of MedVAR. Importing it loads neither Qt, onnxruntime nor torch."""
