"""One file a panel. Panels show values and tell of changes; they hold no model state and start no work."""
