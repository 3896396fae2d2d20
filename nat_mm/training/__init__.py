"""Training runs: starting, resuming and stopping them."""

import nat_mm_startup


def extend_mmengine() -> None:
    """Registers this project's hook and optimizer wrapper, and extends mmengine's own runners.

    These change as soon as they are imported: the loops use no instructions that this CPU lacks
    and go on in the middle of an epoch; the runners look at what a checkpoint has restored.
    """
    from nat_mm.training import autocast, interrupted_epochs, non_finite_loss, restored_state  # noqa: F401

    for module, extend in (
        ('mmengine.runner.loops', autocast.check_instructions_before_loops),
        ('mmengine.runner.loops', interrupted_epochs.continue_epochs),
        ('mmengine.runner.runner', restored_state.check_after_resuming),
        ('mmengine.runner._flexible_runner', restored_state.check_after_resuming),
    ):
        nat_mm_startup.when_imported(module, extend)
