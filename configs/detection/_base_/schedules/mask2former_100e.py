# Values that the Mask2Former configs use as `_base_.NAME`: 100 epochs on COCO with batches of 16
# images, as published. mmdet's ResNet configs have 50 epochs and are otherwise the same.
iterations_100e = 737500
steps_100e = [655556, 710184]
# After the last multiple of 5000, the next validation is at the end.
validation_100e = [(735001, iterations_100e)]
