"""Splits annotated images into training and validation."""

import random
from collections import Counter
from dataclasses import replace

from nat_mm.data.formats.annotated import AnnotatedImage
from nat_mm.errors import UserError


def split_images(
    images: list[AnnotatedImage], *, val_fraction: float, seed: int
) -> list[AnnotatedImage]:
    """Assigns every image to a split, ``train`` or ``val``.

    If the source has images for both, that split is kept, and images of neither are for training.
    Otherwise, each split gets about its share of every class's images: the rarest class is
    distributed first (iterative stratification, Sechidis et al. 2011).

    Args:
        images: The images.
        val_fraction: Share of the images for validation, between 0 and 1.
        seed: Random seed; the same seed gives the same split.

    Returns:
        The images with their splits, in the same order.

    Raises:
        UserError: There are fewer than two images, or ``val_fraction`` is out of range.
    """
    if not 0 < val_fraction < 1:
        raise UserError(
            f'the share of validation images must be between 0 and 1, got {val_fraction}'
        )
    if is_split(images):
        return [replace(image, split=image.split or 'train') for image in images]
    if len(images) < 2:
        raise UserError(f'{len(images)} image cannot be split into training and validation')
    is_val = _stratify(images, val_fraction, seed)
    return [
        replace(image, split='val' if index in is_val else 'train')
        for index, image in enumerate(images)
    ]


def is_split(images: list[AnnotatedImage]) -> bool:
    """Whether the source has images for training and others for validation."""
    return {'train', 'val'} <= {image.split for image in images}


def _stratify(images: list[AnnotatedImage], val_fraction: float, seed: int) -> set[int]:
    """Chooses the indices of the images for validation: at least one, but not all."""
    shares = {'train': 1 - val_fraction, 'val': val_fraction}
    classes = [{each.name for each in image.objects} for image in images]
    waiting = Counter(name for names in classes for name in names)
    wanted = {
        split: Counter({name: count * share for name, count in waiting.items()})
        for split, share in shares.items()
    }
    room = {split: len(images) * share for split, share in shares.items()}
    order = list(range(len(images)))
    random.Random(seed).shuffle(order)
    splits: dict[str, set[int]] = {'train': set(), 'val': set()}
    while order:
        rarest = min((name for name in waiting if waiting[name]), key=waiting.get, default=None)
        later = []
        for index in order:
            if rarest is not None and rarest not in classes[index]:
                later.append(index)
                continue
            need = {split: (wanted[split][rarest], room[split]) for split in shares}
            split = max(need, key=need.get)
            splits[split].add(index)
            room[split] -= 1
            for name in classes[index]:
                wanted[split][name] -= 1
                waiting[name] -= 1
        order = later
    for split, other in (('val', 'train'), ('train', 'val')):
        if not splits[split]:
            moved = max(splits[other])
            splits[other].remove(moved)
            splits[split].add(moved)
    return splits['val']
