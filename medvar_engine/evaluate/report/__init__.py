"""An evaluation as a page, as sentences, and in the model card."""
