"""Networks that embed images as features, and the images that they read."""
