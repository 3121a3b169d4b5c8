"""Synthetic datasets: many images of a mixture of conditions, made unit by unit and resumable.

`make_set.make_set` makes a dataset, `image_set.ImageSet` opens its shards. Image number i depends on the mixture only,
so a dataset does not depend on the batch size, the workers, the order of units, or interruptions.
"""
