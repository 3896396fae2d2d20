"""Reads the metafiles of the model zoo."""

import functools
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]


@functools.cache
def read_model_zoo() -> dict[str, dict]:
    """Returns the entries of all metafiles in model-index.yml by the names of their configs."""
    index = yaml.safe_load((ROOT / 'model-index.yml').read_text())
    loader = getattr(yaml, 'CSafeLoader', yaml.SafeLoader)
    metafiles = [yaml.load((ROOT / path).read_text(), loader) for path in index['Import']]
    return {entry['Name']: entry for metafile in metafiles for entry in metafile['Models']}


def image_size(entry: dict) -> tuple[int, int]:
    """Returns the height and width of the image that the published FLOPs are for."""
    height, width = entry['Metadata']['Input Size'].split('x')
    return int(height), int(width)
