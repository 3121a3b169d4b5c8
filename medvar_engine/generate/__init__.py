"""From a request to an image, scale by scale; edits, traces and replay."""
