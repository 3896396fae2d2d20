"""Repairs of what current PyTorch breaks in OpenMMLab (mmengine 0.10, mmdet 3.3, mmseg 1.2).

Every repair has its own module. None changes an installation that works without it. OpenMMLab's
maintained forks (onedl-mmengine 0.10, onedl-mmdetection 3.5, onedl-mmsegmentation 1.4) need fewer.
"""

import functools
from importlib.util import find_spec

import nat_mm_startup


@functools.cache
def apply() -> None:
    """Put the repairs into effect; further calls change nothing.

    Without mmengine only the import hooks of :mod:`nat_mm_startup` are installed, so that
    :mod:`nat_mm.ops` needs nothing but PyTorch.
    """
    nat_mm_startup.install()
    if find_spec('mmengine') is None:
        return
    from . import (
        autocast,
        bf16_boxes,
        checkpoints,
        fsdp,
        interrupted_epochs,
        noise,
        panoptic_metric,
        panoptic_pictures,
        seg_visualizer,
        strategies,
        whole_checkpoints,
    )

    autocast.register_optim_wrapper()
    noise.silence()
    # These wait for the module that they change, because importing it here would be slow.
    repairs = [
        ('mmdet.evaluation.metrics.coco_panoptic_metric', panoptic_metric.keep_predictions),
        ('mmdet.visualization.local_visualizer', panoptic_pictures.draw_without_segments),
        ('mmengine._strategy.distributed', strategies.save_without_prefix),
        ('mmengine._strategy.fsdp', fsdp.repair),
        ('mmengine.hooks.checkpoint_hook', whole_checkpoints.delete_last),
        ('mmengine.runner.checkpoint', checkpoints.run_no_code),
        ('mmengine.runner.checkpoint', whole_checkpoints.save_whole),
        ('mmengine.runner.loops', autocast.check_instructions_before_loops),
        ('mmengine.runner.loops', interrupted_epochs.continue_epochs),
        ('mmseg.visualization.local_visualizer', seg_visualizer.accept_transposed_images),
        *((module, bf16_boxes.keep_box_precision) for module in bf16_boxes.IN_FP32),
    ]
    for module, repair in repairs:
        nat_mm_startup.when_imported(module, repair)
