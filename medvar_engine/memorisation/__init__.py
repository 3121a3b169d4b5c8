"""Detection of possible copies of training slices: the training index, the gate and the copy policy."""
