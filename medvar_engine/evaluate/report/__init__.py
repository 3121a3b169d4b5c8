"""Reports of an evaluation: an HTML page, findings as sentences, and a section of the model card."""
