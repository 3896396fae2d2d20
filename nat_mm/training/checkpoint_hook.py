"""Finds mmengine's hook that writes checkpoints, and checks how it selects the best one."""

from typing import Any

from mmengine.hooks import CheckpointHook, Hook

from nat_mm.errors import UserError, shorten


def find_checkpoint_hook(runner: Any) -> CheckpointHook | None:
    """Returns the first CheckpointHook of a runner, or None if it has none."""
    return next((hook for hook in runner.hooks if isinstance(hook, CheckpointHook)), None)


class BestMetricCheck(Hook):
    """Checks that validation gives the metrics by which CheckpointHook selects the best checkpoint.

    Raises:
        UserError: If ``save_best`` names another metric.
    """

    priority = 'NORMAL'  # before CheckpointHook

    def after_val_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        hook = find_checkpoint_hook(runner)
        if not metrics or hook is None or not hook.save_best:
            return
        for name in hook.key_indicators:
            if name != 'auto' and name not in metrics:
                raise UserError(
                    f'{runner.cfg.filename}: default_hooks.checkpoint.save_best is {name!r}, but '
                    f'val_evaluator gives {shorten(list(metrics))}: write one of these, or auto '
                    'for the first'
                )
