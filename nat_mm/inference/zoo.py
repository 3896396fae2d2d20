"""The model zoo: configs and published weights by name."""

import difflib
import functools
import importlib.util
from pathlib import Path

import yaml

import nat_mm
from nat_mm.errors import UserError

FOLDER = Path(nat_mm.__file__).parent / '.mim'
"""Contains ``configs`` and ``model-index.yml``; in a checkout they are links."""


def find_config(source: str | Path) -> Path:
    """Finds a config file.

    Args:
        source: A file; ``package::path``, a config that an installed toolbox brings, such as
            ``mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py`` or ``nat_mm::...``; or the name of a
            model in nat_mm's model zoo, such as ``mask_rcnn_nat_tiny_3x_coco``.

    Returns:
        The file.

    Raises:
        UserError: There is no such config.
    """
    path = Path(source)
    if path.is_file():
        return path
    package, separator, config = str(source).partition('::')
    if separator:
        found = importlib.util.find_spec(package) if package.isidentifier() else None
        if found is None or found.origin is None:
            raise UserError(f'config {source}: there is no package {package!r} installed')
        path = Path(found.origin).parent / '.mim' / 'configs' / config
        path = path if path.suffix else path.with_suffix('.py')
        if not path.is_file():
            raise UserError(f'config not found: {path}')
    elif is_model(str(source)):
        path = FOLDER / _entries()[str(source)]['Config']
    if not path.is_file():
        raise UserError(f'config not found: {source}{_suggest(str(source))}')
    return path


def is_model(name: str) -> bool:
    """Whether the model zoo has a model of this name."""
    return name in _entries()


def published_weights(config: str | Path) -> str | None:
    """URL of the weights that the authors published for a config.

    Args:
        config: Config file.

    Returns:
        The URL; None if the config is not in the model zoo.
    """
    entry = _entries().get(Path(config).stem)
    if entry is None or (FOLDER / entry['Config']).resolve() != Path(config).resolve():
        return None
    return entry.get('Weights')


@functools.cache
def _entries() -> dict[str, dict]:
    """What the metafiles say of each model, by its name."""
    index = yaml.safe_load((FOLDER / 'model-index.yml').read_text(encoding='utf-8'))
    files = (yaml.safe_load((FOLDER / path).read_text('utf-8')) for path in index['Import'])
    return {entry['Name']: entry for file in files for entry in file['Models']}


def _suggest(source: str) -> str:
    similar = difflib.get_close_matches(Path(source).stem, _entries(), n=1)
    return f'; the model zoo has {similar[0]}' if similar else ''
