"""Finds configs and published weights in the model zoo by name."""

import difflib
import importlib.util
from pathlib import Path

from nat_mm.checkpoints import hub
from nat_mm.checkpoints.published import FOLDER, read_model_zoo
from nat_mm.errors import UserError

CONFIG_SUFFIXES = ('.py', '.json', '.yaml', '.yml')


def find_config(source: str | Path) -> Path:
    """Finds a config file.

    Args:
        source: A file; ``package::path`` for a config from an installed package, such as
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
    if str(source).startswith(hub.PREFIX):
        raise UserError(
            f'config {source}: a config is a program, and none is run from the network. Name a '
            f'model of the model zoo or a config file, and give {source} as the checkpoint'
        )
    package, separator, config = str(source).partition('::')
    if separator:
        found = importlib.util.find_spec(package) if package.isidentifier() else None
        if found is None or found.origin is None:
            raise UserError(f'config {source}: package {package!r} is not installed')
        path = Path(found.origin).parent / '.mim' / 'configs' / config
        if path.suffix not in CONFIG_SUFFIXES:
            path = Path(f'{path}.py')
        if not path.is_file():
            raise UserError(f'config not found: {path}')
    elif is_model(str(source)):
        path = FOLDER / read_model_zoo()[str(source)]['Config']
    if not path.is_file():
        raise UserError(f'config not found: {source}{_suggest(str(source))}')
    return path


def is_model(name: str) -> bool:
    """Whether the model zoo has a model with this name."""
    return name in read_model_zoo()


def published_weights(config: str | Path) -> str | None:
    """Returns the URL of the weights that the authors published for a config.

    Args:
        config: Config file.

    Returns:
        The URL; None if the config is not in the model zoo or has no published weights.
    """
    entry = read_model_zoo().get(Path(config).stem)
    if entry is None or (FOLDER / entry['Config']).resolve() != Path(config).resolve():
        return None
    return entry.get('Weights')


def _suggest(source: str) -> str:
    similar = difflib.get_close_matches(Path(source).stem, read_model_zoo(), n=1)
    return f'; the model zoo has {similar[0]}' if similar else ''
