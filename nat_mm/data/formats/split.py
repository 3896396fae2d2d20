"""Splits annotated images into training and validation."""

import random
from collections import Counter
from dataclasses import replace

from nat_mm.data.formats.annotated import AnnotatedImage
from nat_mm.errors import UserError


def split_images(
    images: list[AnnotatedImage], *, val_fraction: float, seed: int
) -> list[AnnotatedImage]:
    """Assigns every image to a part, ``train`` or ``val``.

    If the source has images for both, that split is kept, and images of neither are for training.
    Otherwise, each part gets about its share of every class's images: the rarest class is
    distributed first (iterative stratification, Sechidis et al. 2011).

    Args:
        images: The images.
        val_fraction: Share of the images for validation, between 0 and 1.
        seed: Random seed; the same seed gives the same split.

    Returns:
        The images with their parts, in the same order.

    Raises:
        UserError: There are fewer than two images, or ``val_fraction`` is out of range.
    """
    if not 0 < val_fraction < 1:
        raise UserError(
            f'the share of validation images must be between 0 and 1, got {val_fraction}'
        )
    if is_split(images):
        return [replace(image, part=image.part or 'train') for image in images]
    if len(images) < 2:
        raise UserError(f'{len(images)} image cannot be split into training and validation')
    is_val = _stratify(images, val_fraction, seed)
    return [
        replace(image, part='val' if index in is_val else 'train')
        for index, image in enumerate(images)
    ]


def is_split(images: list[AnnotatedImage]) -> bool:
    """Whether the source has images for training and others for validation."""
    return {'train', 'val'} <= {image.part for image in images}


def _stratify(images: list[AnnotatedImage], val_fraction: float, seed: int) -> set[int]:
    """Chooses the indices of the images for validation: at least one, but not all."""
    shares = {'train': 1 - val_fraction, 'val': val_fraction}
    classes = [{each.name for each in image.objects} for image in images]
    waiting = Counter(name for names in classes for name in names)
    wanted = {
        part: Counter({name: count * share for name, count in waiting.items()})
        for part, share in shares.items()
    }
    room = {part: len(images) * share for part, share in shares.items()}
    order = list(range(len(images)))
    random.Random(seed).shuffle(order)
    parts: dict[str, set[int]] = {'train': set(), 'val': set()}
    while order:
        rarest = min((name for name in waiting if waiting[name]), key=waiting.get, default=None)
        later = []
        for index in order:
            if rarest is not None and rarest not in classes[index]:
                later.append(index)
                continue
            need = {part: (wanted[part][rarest], room[part]) for part in shares}
            part = max(need, key=need.get)
            parts[part].add(index)
            room[part] -= 1
            for name in classes[index]:
                wanted[part][name] -= 1
                waiting[name] -= 1
        order = later
    for part, other in (('val', 'train'), ('train', 'val')):
        if not parts[part]:
            moved = max(parts[other])
            parts[other].remove(moved)
            parts[part].add(moved)
    return parts['val']
