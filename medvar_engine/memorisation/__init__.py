"""Whether an image may be a copy of a training slice: the training index and the gate."""
