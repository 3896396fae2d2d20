"""Defines the options of the generated dataset."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class DatasetOptions:
    """Options of the generated dataset; equal options produce byte-identical files.

    Attributes:
        seed: Random seed, >= 0.
        train_scenes: Number of training images, >= 1.
        val_scenes: Number of validation images, >= 1.
        image_size: Side of the square images in pixels, >= 64.
        min_objects: Minimum number of objects drawn in an image, >= 1.
        max_objects: Maximum number of objects drawn in an image.
        object_size: Smallest and largest diameter of an object, before stretching, as shares of
            image_size.
        min_visible_fraction: Share of an object that must be visible for it to be annotated, in
            (0, 1].
        min_area: Minimum number of visible pixels of an annotated object.

    Raises:
        ValueError: If a value is out of range.
    """

    seed: int = 0
    train_scenes: int = 1600
    val_scenes: int = 200
    image_size: int = 128
    min_objects: int = 2
    max_objects: int = 5
    object_size: tuple[float, float] = (0.24, 0.6)
    min_visible_fraction: float = 0.35
    min_area: int = 64

    def __post_init__(self) -> None:
        rules = {
            'seed': (self.seed >= 0, 'at least 0'),
            'train_scenes': (self.train_scenes >= 1, 'at least 1'),
            'val_scenes': (self.val_scenes >= 1, 'at least 1'),
            'image_size': (self.image_size >= 64, 'at least 64'),
            'min_objects': (self.min_objects >= 1, 'at least 1'),
            'max_objects': (self.max_objects >= self.min_objects, 'at least min_objects'),
            'object_size': (
                0.1 <= self.object_size[0] <= self.object_size[1] <= 1,
                'two shares in rising order between 0.1 and 1',
            ),
            'min_visible_fraction': (0 < self.min_visible_fraction <= 1, 'above 0 and at most 1'),
            'min_area': (self.min_area >= 1, 'at least 1'),
        }
        for name, (holds, rule) in rules.items():
            if not holds:
                raise ValueError(f'{name} must be {rule}; got {getattr(self, name)!r}')
