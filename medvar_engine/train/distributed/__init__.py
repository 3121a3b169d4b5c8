"""Training on several processes: copies or shares of the weights."""
