"""Sets: many synthetic images of a mix of conditions, made unit by unit, stopped and gone on with at will.

`make_set.make_set` makes one, `image_set.ImageSet` opens the shards of one. Image number i follows from the mix alone,
so that a set is the same whatever the batch size, the workers, the order of the units, or how often it was stopped.
"""
