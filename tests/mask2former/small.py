"""Small versions of the shipped configs for the small dataset."""

from pathlib import Path

from mmengine.config import Config

CONFIGS = Path(__file__).parents[2] / 'configs'
SHIPPED = {
    'semantic': 'segmentation/mask2former/mask2former_dinat_large_640x640_160k_ade20k.py',
    'instance': 'detection/mask2former/mask2former_dinat_large_100e_coco_instance.py',
    'panoptic': 'detection/mask2former/mask2former_dinat_large_100e_coco_panoptic.py',
    'ade20k_instance': (
        'detection/mask2former/mask2former_dinat_large_640x640_160k_ade20k_instance.py'
    ),
    'ade20k_panoptic': (
        'detection/mask2former/mask2former_dinat_large_640x640_160k_ade20k_panoptic.py'
    ),
    'cityscapes_semantic': (
        'segmentation/mask2former/mask2former_dinat_large_512x1024_90k_cityscapes.py'
    ),
    'cityscapes_instance': (
        'detection/mask2former/mask2former_dinat_large_512x1024_90k_cityscapes_instance.py'
    ),
    'cityscapes_panoptic': (
        'detection/mask2former/mask2former_dinat_large_512x1024_90k_cityscapes_panoptic.py'
    ),
}
PUBLISHED = {
    **{'semantic': 'ade20k_semantic', 'instance': 'coco_instance', 'panoptic': 'coco_panoptic'},
    **{task: task for task in SHIPPED if '_' in task},
}
"""Names of the published experiments, without ``mask2former_dinat_large_``."""
RUN = ('semantic', 'instance', 'panoptic')
"""The tasks whose small models are trained, tested and used; the others differ only in data."""
CHANNELS = [32, 64, 128, 256]
BACKBONE = dict(
    arch=None,
    embed_dim=32,
    depths=(1, 1, 1, 1),
    num_heads=(1, 2, 4, 8),
    kernel_size=3,
    dilations=[[1], [2], [1], [1]],
    init_cfg=None,
)
# The widths of the heads, and the sizes of images and crops.
SMALLER = {256: 32, 128: 16, 1024: 64, 2048: 64, 12544: 112}
SMALLER_SIZES = {
    (1024, 1024): (96, 96),
    (1333, 800): (128, 96),
    (640, 640): (64, 64),
    (2560, 640): (128, 96),
    (1024, 512): (96, 64),
    (512, 1024): (64, 96),
    (2048, 1024): (128, 96),
}


def shipped_config(task: str) -> Config:
    """Reads the config of a task in ``SHIPPED``."""
    return Config.fromfile(CONFIGS / SHIPPED[task])


def small_config(task: str, data: Path) -> Config:
    """Makes a shipped config with a small model, small images and two iterations.

    Args:
        task: One of ``RUN``, or ``cityscapes_panoptic``.
        data: Folder of the small dataset, with panoptic annotations in ``panoptic`` and those of
            Cityscapes in ``cityscapes``.
    """
    config = shipped_config(task)
    shrink_model(config)
    for node in (config.model, config.train_dataloader, config.val_dataloader):
        replace(node, SMALLER_SIZES)
    (config.model.get('decode_head') or config.model.panoptic_head).num_queries = 10
    {
        'semantic': use_semantic,
        'instance': use_instance,
        'panoptic': use_panoptic,
        'cityscapes_panoptic': use_cityscapes,
    }[task](config, data)
    config.test_dataloader = config.val_dataloader
    config.test_evaluator = config.val_evaluator
    config.train_cfg.update(max_iters=2, val_interval=2, dynamic_intervals=None)
    config.default_hooks.logger.interval = 1
    config.default_hooks.checkpoint.interval = 2
    config.randomness = dict(seed=0)
    return config


def shrink_model(config: Config) -> None:
    """Makes the model of a config small but keeps its classes and queries."""
    head = config.model.get('decode_head') or config.model.panoptic_head
    replace(head, SMALLER)
    replace(config.model.get('train_cfg'), SMALLER)
    config.model.backbone.update(BACKBONE)
    head.in_channels = CHANNELS
    head.pixel_decoder.encoder.num_layers = 1
    head.transformer_decoder.num_layers = 3


def use_semantic(config: Config, data: Path) -> None:
    for step in config.train_dataloader.dataset.pipeline:
        if step.type == 'RandomChoiceResize':
            step.update(scales=[64, 96], max_size=192)
    test_time = config.tta_pipeline[1].transforms
    test_time[0] = test_time[0][:2]
    for resize, short_side in zip(test_time[0], (64, 96), strict=True):
        resize.scale = (128, short_side)
    # ADE20K's classes with the same numbers as the small dataset's background, box and disc.
    metainfo = dict(classes=('wall', 'building', 'sky'))
    for part in ('train', 'val'):
        loader = config[f'{part}_dataloader']
        loader.update(num_workers=0, persistent_workers=False)
        loader.dataset.update(data_root=str(data), metainfo=metainfo)
    set_classes(config.model.decode_head, 3)
    config.model.decode_head.num_classes = 3


def use_instance(config: Config, data: Path) -> None:
    use_coco(config, data, 'coco', dict(classes=('box', 'disc')))
    set_thing_and_stuff(config, things=2, stuff=0)
    config.val_evaluator.ann_file = f'{data}/coco/validation.json'


def use_panoptic(config: Config, data: Path) -> None:
    metainfo = dict(
        classes=('box', 'disc', 'background'),
        thing_classes=('box', 'disc'),
        stuff_classes=('background',),
    )
    use_coco(config, data, 'panoptic', metainfo)
    set_thing_and_stuff(config, things=2, stuff=1)
    # All classes of all queries, because those of stuff are dropped afterwards.
    config.model.test_cfg.max_per_image = 3 * config.model.panoptic_head.num_queries
    for part, name in (('train', 'training'), ('val', 'validation')):
        config[f'{part}_dataloader'].dataset.data_prefix.seg = f'panoptic/{name}'
    panoptic, instances = config.val_evaluator
    panoptic.update(
        ann_file=f'{data}/panoptic/validation.json', seg_prefix=f'{data}/panoptic/validation'
    )
    instances.ann_file = f'{data}/coco/validation.json'


def use_cityscapes(config: Config, data: Path) -> None:
    for part in ('train', 'val'):
        loader = config[f'{part}_dataloader']
        loader.update(num_workers=0, persistent_workers=False)
        loader.dataset.data_root = str(data / 'cityscapes')
    for step in config.train_dataloader.dataset.pipeline:
        if step.type == 'RandomChoiceResize':
            step.scales = [(192, 64), (192, 96)]
    config.val_evaluator.outfile_prefix = str(data / 'cityscapes/results')
    config.model.test_cfg.max_per_image = 5


def use_coco(config: Config, data: Path, folder: str, metainfo: dict) -> None:
    for part, name in (('train', 'training'), ('val', 'validation')):
        loader = config[f'{part}_dataloader']
        loader.update(num_workers=0, persistent_workers=False)
        loader.dataset.update(
            data_root=str(data), ann_file=f'{folder}/{name}.json', metainfo=metainfo
        )
        loader.dataset.data_prefix.img = f'images/{name}'


def set_thing_and_stuff(config: Config, *, things: int, stuff: int) -> None:
    for head in (config.model.panoptic_head, config.model.panoptic_fusion_head):
        head.update(num_things_classes=things, num_stuff_classes=stuff)
    set_classes(config.model.panoptic_head, things + stuff)
    config.model.test_cfg.max_per_image = 5


def set_classes(head: dict, count: int) -> None:
    head.loss_cls.class_weight = [1.0] * count + [0.1]


def replace(node: dict | list | None, replacements: dict) -> None:
    """Replaces values everywhere in a part of a config."""
    if isinstance(node, dict):
        items = list(node.items())
    elif isinstance(node, list):
        items = list(enumerate(node))
    else:
        return
    for key, value in items:
        value = tuple(value) if isinstance(value, list) and len(value) == 2 else value
        if isinstance(value, int | tuple) and not isinstance(value, bool) and value in replacements:
            node[key] = replacements[value]
        else:
            replace(node[key], replacements)
