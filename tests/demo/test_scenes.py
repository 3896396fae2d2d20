from dataclasses import replace

import numpy as np
import pytest

from nat_mm.demo import KINDS, PALETTE, DatasetOptions, make_scene, photographs
from nat_mm.demo.kinds import sample_outline
from nat_mm.demo.photographs import PHOTOGRAPHS, SHARES, sample_background

OPTIONS = DatasetOptions(image_size=96)


def scenes(split='train', count=12):
    return [make_scene(split, index, OPTIONS) for index in range(count)]


def test_there_are_at_least_five_kinds_with_distinct_colors():
    assert len(set(KINDS)) == len(KINDS) >= 5
    assert len(set(PALETTE)) == len(PALETTE) == len(KINDS)


@pytest.mark.parametrize('kind', KINDS)
def test_outlines_of_a_kind_vary_and_stay_in_range(kind):
    outlines = [sample_outline(kind, np.random.default_rng(seed)) for seed in range(8)]
    points = [np.concatenate(outline) for outline in outlines]
    assert all(1.1 < np.ptp(p, axis=0).max() <= 2.6 for p in points)
    assert any(p.shape != points[0].shape or not np.allclose(p, points[0]) for p in points[1:])


def test_unknown_kind_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="kind must be one of star, .*; got 'cube'"):
        sample_outline('cube', np.random.default_rng(0))


def test_no_part_of_a_photograph_serves_both_splits():
    assert SHARES['train'][1] <= SHARES['val'][0]


@pytest.mark.parametrize('split', SHARES)
def test_backgrounds_come_from_the_part_of_the_split(split, monkeypatch):
    ramp = np.tile(np.linspace(0, 255, 200, dtype=np.uint8)[None, :, None], (80, 1, 3))
    monkeypatch.setattr(photographs, '_read_photograph', lambda name: ramp)
    monkeypatch.setattr(photographs, 'GAINS', ((1.0, 1.0), (1.0, 1.0)))
    low, high = SHARES[split]
    for seed in range(20):
        background = sample_background(split, 40, np.random.default_rng(seed))
        assert background.min() >= low - 0.01
        assert background.max() <= high + 0.01


@pytest.mark.parametrize('split', SHARES)
@pytest.mark.parametrize('name', PHOTOGRAPHS)
def test_every_photograph_gives_a_background_with_detail(split, name, monkeypatch):
    monkeypatch.setattr(photographs, 'PHOTOGRAPHS', (name,))
    background = sample_background(split, 80, np.random.default_rng(0))
    assert background.shape == (80, 80, 3)
    assert background.dtype == np.float32
    assert background.min() >= 0
    assert background.max() <= 1
    assert background.std() > 0.01


def test_missing_photograph_is_a_clear_error(monkeypatch):
    monkeypatch.setattr(photographs, 'PHOTOGRAPHS', ('no_such.png',))
    with pytest.raises(FileNotFoundError, match='no_such.png is missing: the installed scikit'):
        sample_background('val', 80, np.random.default_rng(0))


def test_same_arguments_give_the_same_scene():
    first, second = make_scene('val', 3, OPTIONS), make_scene('val', 3, OPTIONS)
    np.testing.assert_array_equal(first.image, second.image)
    np.testing.assert_array_equal(first.labels, second.labels)


@pytest.mark.parametrize(
    'other',
    [
        pytest.param(('train', 3, OPTIONS), id='split'),
        pytest.param(('val', 4, OPTIONS), id='index'),
        pytest.param(('val', 3, replace(OPTIONS, seed=1)), id='seed'),
    ],
)
def test_another_split_index_or_seed_gives_another_scene(other):
    first, second = make_scene('val', 3, OPTIONS), make_scene(*other)
    assert np.abs(first.image.astype(int) - second.image).mean() > 5


def test_labels_agree_with_the_instance_masks():
    for scene in scenes():
        kinds_from_masks = np.zeros(scene.labels.shape, np.uint8)
        for instance in scene.instances:
            assert not kinds_from_masks[instance.mask].any(), 'masks overlap'
            kinds_from_masks[instance.mask] = 2 + instance.kind
        annotated = scene.labels >= 2
        np.testing.assert_array_equal(kinds_from_masks[annotated], scene.labels[annotated])
        assert not kinds_from_masks[~annotated].any()
        assert (scene.labels == 1).any()


def test_objects_occlude_one_another_and_vary_in_size():
    all_scenes = scenes(count=40)
    areas = [int(i.mask.sum()) for scene in all_scenes for i in scene.instances]
    assert {i.kind for scene in all_scenes for i in scene.instances} == set(range(len(KINDS)))
    assert np.percentile(areas, 90) > 4 * np.percentile(areas, 10)
    assert any((scene.labels == 0).any() for scene in all_scenes), 'nothing was hidden'
    # Even for masks with holes, boxes that share pixels mean that objects overlap.
    frames_share_pixels = 0
    for scene in all_scenes:
        covered = np.zeros(scene.labels.shape, int)
        for instance in scene.instances:
            rows, columns = np.where(instance.mask)
            covered[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] += 1
        frames_share_pixels += (covered > 1).any()
    assert frames_share_pixels > 10


def test_the_fewer_visible_parts_suffice_the_more_objects_are_annotated():
    numbers = []
    for fraction in (1.0, 0.35, 0.01):
        options = replace(OPTIONS, max_objects=12, min_visible_fraction=fraction, min_area=1)
        numbers.append(sum(len(make_scene('train', i, options).instances) for i in range(20)))
    assert numbers[0] < numbers[1] < numbers[2]


@pytest.mark.parametrize(
    ('wrong', 'message'),
    [
        ({'seed': -1}, 'seed must be at least 0; got -1'),
        ({'train_scenes': 0}, 'train_scenes must be at least 1; got 0'),
        ({'val_scenes': 0}, 'val_scenes must be at least 1; got 0'),
        ({'image_size': 32}, 'image_size must be at least 64; got 32'),
        ({'min_objects': 0}, 'min_objects must be at least 1; got 0'),
        ({'max_objects': 1}, 'max_objects must be at least min_objects; got 1'),
        ({'object_size': (0.9, 0.3)}, 'object_size must be two shares in rising order'),
        ({'min_visible_fraction': 0.0}, 'min_visible_fraction must be above 0 and at most 1'),
        ({'min_area': 0}, 'min_area must be at least 1; got 0'),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else '',
)
def test_wrong_options_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        DatasetOptions(**wrong)
