"""Starts, resumes and stops training runs."""

import nat_mm_startup


def extend_mmengine() -> None:
    """Registers nat_mm's hooks and optimizer wrapper, and extends mmengine's own runners.

    mmengine's modules are patched as soon as they are imported: loops avoid instructions that this
    CPU cannot run and can resume in the middle of an epoch; runners validate what a checkpoint
    restores and format a config for logs and checkpoints once instead of five times.
    """
    from nat_mm.training import (
        autocast,
        compiled_backbone,  # noqa: F401
        config_text,
        interrupted_epochs,
        non_finite_loss,  # noqa: F401
        restored_state,
    )

    for module, extend in (
        ('mmengine.config.config', config_text.format_once),
        ('mmengine.runner.loops', autocast.check_instructions_before_loops),
        ('mmengine.runner.loops', interrupted_epochs.continue_epochs),
        ('mmengine.runner.runner', restored_state.check_after_resuming),
        ('mmengine.runner._flexible_runner', restored_state.check_after_resuming),
    ):
        nat_mm_startup.when_imported(module, extend)
