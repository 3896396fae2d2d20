"""Config switch for TensorBoard."""

from collections.abc import Sequence
from importlib.util import find_spec

from mmengine.config import Config

from nat_mm.config.objects import type_name
from nat_mm.errors import UserError

BACKEND = 'TensorboardVisBackend'


def apply_tensorboard(config: Config) -> None:
    """Makes a training run also log for TensorBoard if its config has ``tensorboard = True``.

    Adds mmengine's backend to those of the config's visualizer without replacing any. The backend
    may also be listed there explicitly.

    Args:
        config: Config of the training run.

    Raises:
        UserError: If the switch is neither True nor False, or tensorboard is not installed.
    """
    switch = config.get('tensorboard', False)
    if not isinstance(switch, bool):
        raise UserError(f'{config.filename}: tensorboard must be True or False, got {switch!r}')
    if config.get('visualizer') is None:
        config.visualizer = dict(type='Visualizer')
    backends = config.visualizer.get('vis_backends') or [dict(type='LocalVisBackend')]
    if isinstance(backends, dict):
        backends = [backends]  # as in mmengine
    if switch and not _logs(backends):
        backends = [*backends, dict(type=BACKEND)]
        config.visualizer.vis_backends = backends
    if _logs(backends) and not find_spec('tensorboard'):
        raise UserError(
            f'{config.filename} logs for TensorBoard, which is not installed: '
            "pip install 'nat_mm[tensorboard]'"
        )


def _logs(backends: Sequence[dict]) -> bool:
    return any(type_name(backend) == BACKEND for backend in backends)
