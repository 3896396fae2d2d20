"""Tests that published dilations, each meant for one image size, work on images of any size."""

import json
import math
from pathlib import Path

import pytest
import torch

from nat_mm.backbones import DiNAT, DiNAT_s

FACTS = json.loads((Path(__file__).parents[1] / 'data' / 'published_experiments.json').read_text())
FAMILIES = {'DiNAT': DiNAT, 'DiNAT_s': DiNAT_s}
SIZES_WITH_REFERENCE = [(64, 64), (65, 127), (97, 64), (224, 161)]
LARGER_SIZES = [(333, 501), (640, 517), (1023, 1024)]


def published_dilations():
    """Returns the distinct dilations per stage of each published list, without duplicates."""
    lists = {}
    for experiment in FACTS['experiments']:
        if dilations := experiment['arch'].get('dilations'):
            distinct = [sorted(set(stage)) for stage in dilations]
            lists.setdefault((experiment['backbone'], str(distinct)), experiment['name'])
    return [
        pytest.param(FAMILIES[family], json.loads(dilations), id=name)
        for (family, dilations), name in lists.items()
    ]


def size_id(size):
    return 'x'.join(map(str, size))


def make(family, dilations, **options):
    torch.manual_seed(0)
    return family(
        embed_dim=8,
        depths=[len(each) for each in dilations],
        num_heads=(1, 2, 4, 8),
        kernel_size=7,
        dilations=dilations,
        mlp_ratio=1.0,
        layer_scale=1.0,
        **options,
    ).eval()


@pytest.mark.parametrize('size', SIZES_WITH_REFERENCE, ids=size_id)
@pytest.mark.parametrize(('family', 'dilations'), published_dilations())
def test_small_images_are_padded(family, dilations, size):
    image = torch.randn(1, 3, *size)
    with torch.no_grad():
        features = make(family, dilations)(image)
        expected = make(family, dilations, attention_backend='reference')(image)
    for feature, other in zip(features, expected, strict=True):
        torch.testing.assert_close(feature, other, rtol=0, atol=2e-4)


@pytest.mark.parametrize('size', LARGER_SIZES, ids=size_id)
@pytest.mark.parametrize(('family', 'dilations'), published_dilations())
def test_larger_images(family, dilations, size):
    with torch.no_grad():
        features = make(family, dilations)(torch.randn(1, 3, *size))
    for stage, feature in enumerate(features):
        stride = 4 * 2**stage
        assert feature.shape[2:] == tuple(math.ceil(length / stride) for length in size)
        assert feature.isfinite().all()
