"""Provides example images: generated scenes like those for which the demo's models are trained."""

from pathlib import Path

from nat_mm.demo import DatasetOptions
from nat_mm.demo.scenes import make_scene
from nat_mm.files import write_image

COUNT = 6


def write_examples(folder: Path) -> list[Path]:
    """Writes scenes on which none of the demo's models was trained.

    Args:
        folder: Folder for the scenes.

    Returns:
        The files.
    """
    paths = []
    for index in range(COUNT):
        paths.append(folder / f'scene_{index + 1}.png')
        write_image(paths[-1], make_scene('val', index, DatasetOptions()).image)
    return paths
