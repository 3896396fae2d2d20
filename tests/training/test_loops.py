"""Tests which data loaders a loop accepts."""

from types import SimpleNamespace

import pytest
from mmengine.config import Config
from mmengine.dataset import DefaultSampler, InfiniteSampler
from torch.utils.data import BatchSampler, DataLoader

from nat_mm.errors import UserError
from nat_mm.training.runner import build_loop

IMAGES = range(3)


@pytest.mark.parametrize(
    ('sampler', 'separate', 'is_whole'),
    [
        (InfiniteSampler, False, True),
        (InfiniteSampler, True, True),
        (DefaultSampler, False, False),
        (DefaultSampler, True, False),
    ],
)
def test_images_that_do_not_fill_a_batch(sampler, separate, is_whole):
    """A batch sampler, as mmdet's configs have one, contains the sampler of the images."""
    options = {'batch_size': 4, 'drop_last': True}
    if separate:
        loader = DataLoader(IMAGES, batch_sampler=BatchSampler(sampler(IMAGES), **options))
    else:
        loader = DataLoader(IMAGES, sampler=sampler(IMAGES), **options)
    runner = SimpleNamespace(
        cfg=Config({'train_dataloader': options}),
        train_loop=SimpleNamespace(dataloader=loader),
        build_dataloader=None,
    )
    if is_whole:
        build_loop(runner, 'train')
        assert len(next(iter(loader))) == 4
    else:
        with pytest.raises(UserError, match='drop_last is True, but the dataset has only 3 images'):
            build_loop(runner, 'train')
