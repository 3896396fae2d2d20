"""Training runs: starting, resuming and stopping them."""

import nat_mm_startup


def extend_mmengine() -> None:
    """Registers this project's hook and optimizer wrapper, and extends mmengine's own runners.

    These change as soon as they are imported: the loops use no instructions that this CPU lacks
    and go on in the middle of an epoch; the runners look at what a checkpoint has restored and
    format a config for logs and checkpoints once, not five times.
    """
    from nat_mm.training import (
        autocast,
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
