"""Finds mmengine's hook that writes checkpoints."""

from typing import Any

from mmengine.hooks import CheckpointHook


def find_checkpoint_hook(runner: Any) -> CheckpointHook | None:
    """Returns the first CheckpointHook of a runner, or None if it has none."""
    return next((hook for hook in runner.hooks if isinstance(hook, CheckpointHook)), None)
