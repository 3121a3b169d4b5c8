"""Training with several processes, with copies or shares of the weights."""
