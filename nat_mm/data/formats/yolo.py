"""Reads YOLO's format: a text file for each image, with one box or polygon per line."""

from pathlib import Path
from typing import Any

import yaml

from nat_mm.data.formats.annotated import (
    AnnotatedImage,
    AnnotatedObject,
    Annotations,
    clip_points,
    enclose,
    find_files,
    read_size,
    read_text,
    split_of,
)
from nat_mm.errors import UserError
from nat_mm.inference.images import IMAGE_SUFFIXES

_NAME_FILES = ('classes.txt', 'obj.names')
_NOT_LABELS = ('classes.txt', 'readme')


def read_yolo(source: Path) -> Annotations:
    """Reads a folder in YOLO's format.

    A line consists of a class and the center, width and height of a box, or a class and the points
    of a polygon, all as fractions of the image's width and height. If the images are in a folder
    ``images``, their labels are in the corresponding folder ``labels``; otherwise, they are next to
    the images. Folders with names starting with ``train`` and ``val`` are the splits of the data;
    those starting with ``test`` are left out. An image without labels has no objects.

    Args:
        source: The folder, with the names of the classes in ``data.yaml``, or one per line in
            ``classes.txt`` or ``obj.names``.

    Returns:
        The annotations; classes are in the order of their numbers.

    Raises:
        UserError: There is nothing to read, or something is wrong with a file.
    """
    paths = find_files(source, IMAGE_SUFFIXES)
    if not paths:
        raise UserError(f'{source} has no images in it')
    settings, settings_path = _read_settings(source)
    classes, classes_path = _read_classes(source, settings, settings_path)
    has_keypoints = 'kpt_shape' in settings

    annotations = Annotations([], classes)
    labels = {path: _label_path(path, source) for path in paths}
    found = {label for label in labels.values() if label.is_file()}
    if not found:
        example = next(iter(labels.values()))
        raise UserError(f'{source} has no labels: there is no {example}, for example')
    _check_every_label_has_an_image(found)
    for path, label in labels.items():
        split = split_of(path, source)
        if split == 'test':
            annotations.left_out['images of the test split'] += 1
            continue
        size = read_size(path)
        objects = []
        lines = read_text(label).splitlines() if label in found else ()
        for number, line in enumerate(lines, start=1):
            if line.strip():
                place = f'{label}, line {number}'
                objects.append(_read_line(line, size, classes, classes_path, place, has_keypoints))
        annotations.images.append(AnnotatedImage(path, *size, tuple(objects), split))
    return annotations


def _read_settings(source: Path) -> tuple[dict[str, Any], Path | None]:
    """Reads the YAML file that names the classes; empty without one."""
    found = {}
    for path in find_files(source, ('.yaml', '.yml')):
        try:
            content = yaml.safe_load(read_text(path))
        except yaml.YAMLError as error:
            raise UserError(f'{path} is not YAML: {error}') from error
        if isinstance(content, dict) and 'names' in content:
            found[path] = content
    if len(found) > 1:
        raise UserError(
            f'{source} has several YAML files with names of classes: {", ".join(map(str, found))}'
        )
    for path, content in found.items():
        for split in ('train', 'val'):
            if str(content.get(split)).endswith('.txt'):
                raise UserError(
                    f'{path}: {split} is a list of images, {content[split]}, which is not '
                    f'supported: put the images of train and val into folders of these names'
                )
        return content, path
    return {}, None


def _read_classes(
    source: Path, settings: dict[str, Any], settings_path: Path | None
) -> tuple[list[str], Path]:
    if settings_path is not None:
        names = settings['names']
        if isinstance(names, dict) and sorted(names) == list(range(len(names))):
            names = [names[number] for number in range(len(names))]
        if not isinstance(names, list) or not names:
            raise UserError(
                f'{settings_path}: names must be a list, or a number from 0 on for each, '
                f'got {names!r}'
            )
        return [str(name) for name in names], settings_path
    for folder in (source, source / 'labels'):
        for name in _NAME_FILES:
            path = folder / name
            if path.is_file():
                return [line.strip() for line in read_text(path).splitlines() if line.strip()], path
    raise UserError(
        f'{source} does not name its classes: write data.yaml with names: [...], or classes.txt '
        f'with a name a line'
    )


def _label_path(image: Path, source: Path) -> Path:
    """Returns the label file of an image: in ``labels`` instead of ``images``, or next to it."""
    parts = list(image.relative_to(source).with_suffix('.txt').parts)
    folders = [index for index, part in enumerate(parts[:-1]) if part == 'images']
    if folders:
        parts[folders[-1]] = 'labels'
    return source.joinpath(*parts)


def _check_every_label_has_an_image(found: set[Path]) -> None:
    for folder in {label.parent for label in found}:
        for path in sorted(folder.glob('*.txt')):
            if path not in found and not path.name.lower().startswith(_NOT_LABELS):
                raise UserError(f'{path} has no image')


def _read_line(
    line: str,
    size: tuple[int, int],
    classes: list[str],
    classes_path: Path,
    place: str,
    has_keypoints: bool,
) -> AnnotatedObject:
    try:
        number, *shares = map(float, line.split())
    except ValueError:
        raise UserError(f'{place} must be numbers, got {line.strip()[:60]!r}') from None
    if number not in range(len(classes)):
        raise UserError(
            f'{place}: class {number:g}, but {classes_path} names {len(classes)}, from 0 to '
            f'{len(classes) - 1}'
        )
    if has_keypoints:
        shares = shares[:4]
    if len(shares) != 4 and (len(shares) < 6 or len(shares) % 2):
        raise UserError(
            f'{place} has {len(shares)} numbers after the class: a box has 4, a polygon 6 or more, '
            f'two for each point'
        )
    width, height = size
    if max(map(abs, shares)) > 2:
        raise UserError(
            f'{place}: {max(shares, key=abs):g} is not a fraction of the image, from 0 to 1; are '
            f'these pixels?'
        )
    name = classes[int(number)]
    if len(shares) > 4:
        pixels = [share * size[index % 2] for index, share in enumerate(shares)]
        polygon = clip_points(pixels, size, place=place)
        return AnnotatedObject(name, enclose([polygon], place=place), (polygon,))
    x, y, w, h = shares
    corners = ((x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height)
    if w <= 0 or h <= 0:
        raise UserError(f'{place}: the box is {w:g} wide and {h:g} high, both must be above 0')
    corners = clip_points(corners, size, place=place)
    return AnnotatedObject(name, enclose([corners], place=place))
