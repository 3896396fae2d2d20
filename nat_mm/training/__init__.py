"""Starts, resumes and stops training runs."""

from types import ModuleType

import nat_mm_startup

LAYER_DECAY = 'engine.optimizers.layer_decay_optimizer_constructor'


def extend_mmengine() -> None:
    """Registers nat_mm's hooks and optimizer wrapper, and extends mmengine's own runners.

    mmengine's modules are patched as soon as they are imported: loops avoid instructions that this
    CPU cannot run and can resume in the middle of an epoch; runners apply ``dataset_classes``,
    validate what a checkpoint restores and format a config for logs and checkpoints once instead of
    five times; mmdet's and mmseg's layer-wise learning rates handle the backbones of nat_mm; the
    FLOP counter knows neighborhood attention.
    """
    from nat_mm.config import dataset_classes
    from nat_mm.ops import flops
    from nat_mm.training import (
        autocast,
        compiled_backbone,  # noqa: F401
        config_text,
        interrupted_epochs,
        layer_decay,
        non_finite_loss,  # noqa: F401
        restored_state,
    )

    def extend_runner(module: ModuleType) -> None:
        # Each of the two modules has one of the classes.
        runner_class = getattr(module, 'Runner', None) or module.FlexibleRunner
        dataset_classes.apply_in_runners(runner_class)
        restored_state.check_after_resuming(runner_class)

    for module, extend in (
        ('mmengine.analysis.complexity_analysis', flops.add_handles),
        ('mmengine.config.config', config_text.format_once),
        ('mmengine.runner.loops', autocast.check_instructions_before_loops),
        ('mmengine.runner.loops', interrupted_epochs.continue_epochs),
        (f'mmdet.{LAYER_DECAY}', layer_decay.handle_own_backbones),
        (f'mmseg.{LAYER_DECAY}', layer_decay.handle_own_backbones),
        ('mmengine.runner.runner', extend_runner),
        ('mmengine.runner._flexible_runner', extend_runner),
    ):
        nat_mm_startup.when_imported(module, extend)
