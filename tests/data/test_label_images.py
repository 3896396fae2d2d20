"""Tests that label images are compared with their images and with the classes."""

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import DATASETS, TRANSFORMS, init_default_scope
from mmseg.datasets import BaseSegDataset
from mmseg.evaluation import IoUMetric
from PIL import Image

from nat_mm.data.label_images import find_label_image_problems, spread
from nat_mm.data.sources import find_sources

ORIENTATION = 0x0112
NAMES = ('road', 'car', 'tree')
HEIGHT, WIDTH = 6, 8


@pytest.fixture
def root(tmp_path):
    """Three images of 8 x 6 pixels and their label images, with the values 0, 1 and 2."""
    for index in range(3):
        write(tmp_path / f'images/{index}.jpg', np.zeros((HEIGHT, WIDTH, 3), np.uint8))
        write(tmp_path / f'labels/{index}.png', labels_of(0, 1, 2))
    return tmp_path


def write(path, array, mode=None, **options):
    path.parent.mkdir(exist_ok=True)
    image = Image.fromarray(array)
    if mode == 'P':
        image.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0, 0, 0, 128])
    elif mode:
        image = image.convert(mode)
    image.save(path, **options)


def labels_of(*values, dtype=np.uint8):
    """Makes a label image that contains each of the values."""
    return np.resize(np.array(values, dtype), (HEIGHT, WIDTH))


def make_config(root, *, split='train', **overrides):
    config = Config(
        dict(
            default_scope='mmseg',
            model=dict(
                type='EncoderDecoder',
                data_preprocessor=dict(type='SegDataPreProcessor', size=(8, 8)),
                decode_head=dict(type='FCNHead', num_classes=3),
                auxiliary_head=[dict(type='FCNHead', num_classes=3)],
            ),
            val_evaluator=dict(type='IoUMetric'),
        )
    )
    config[f'{split}_dataloader'] = dict(
        dataset=dict(
            type='BaseSegDataset',
            data_root=str(root),
            data_prefix=dict(img_path='images', seg_map_path='labels'),
            metainfo=dict(classes=NAMES),
            pipeline=[
                dict(type='LoadImageFromFile'),
                dict(type='LoadAnnotations'),
                dict(type='PackSegInputs'),
            ],
        )
    )
    config.merge_from_dict({key.replace('__', '.'): each for key, each in overrides.items()})
    return config


def problems_of(root, *, split='train', thorough=False, **overrides):
    """Returns errors and warnings as (text without the data's path, whether it is an error)."""
    init_default_scope('mmseg')
    dataset = {f'{split}_dataloader__dataset__{key}': each for key, each in overrides.items()}
    model = {
        key: dataset.pop(f'{split}_dataloader__dataset__{key}') for key in overrides if '__' in key
    }
    config = make_config(root, split=split, **dataset, **model)
    (source,) = find_sources(config, split)
    found = find_label_image_problems(source, config=config, thorough=thorough)
    return [(each.text.replace(f'{root}/', ''), each.is_error) for each in found]


def error_of(root, **overrides):
    ((text, is_error),) = problems_of(root, **overrides)
    assert is_error, text
    return text


def warning_of(root, **overrides):
    ((text, is_error),) = problems_of(root, **overrides)
    assert not is_error, text
    return text


def test_sound_labels(root):
    assert problems_of(root) == []
    assert problems_of(root, split='val') == []


def test_labels_that_are_not_loaded(root):
    assert problems_of(root, pipeline=[dict(type='LoadImageFromFile')]) == []


def test_other_datasets_have_none():
    init_default_scope('mmdet')
    dataset = dict(type='CocoDataset', ann_file='gone.json', data_prefix=dict(img='images'))
    config = Config(dict(default_scope='mmdet', model={}, train_dataloader=dict(dataset=dataset)))
    (source,) = find_sources(config, 'train')
    assert list(find_label_image_problems(source, config=config)) == []


def test_image_without_label(root):
    (root / 'labels/1.png').unlink()
    (root / 'labels/2.png').unlink()
    text = error_of(root)
    assert text.startswith('images/1.jpg has no label: labels/1.png does not exist. ')
    assert text.endswith('(the same with 2 of 3 images)')


def test_label_without_image(root):
    (root / 'images/1.jpg').unlink()
    assert warning_of(root) == 'labels/1.png has no image: images/1.jpg does not exist'


def test_labels_beyond_the_indices(root):
    assert problems_of(root, indices=2) == []


def test_other_suffix_of_labels(root):
    text = error_of(root, seg_map_suffix='_mask.png')
    assert "seg_map_suffix is '_mask.png', but there the name of its label ends with '.png'" in text


def test_other_suffix_of_images(root):
    text = error_of(root, img_suffix='.png')
    assert "in images no name ends with '.png', but 3 with '.jpg'; set img_suffix" in text


def test_images_with_several_suffixes(root):
    write(root / 'images/3.JPG', np.zeros((HEIGHT, WIDTH, 3), np.uint8), format='JPEG')
    text = warning_of(root)
    start = 'images has images that are ignored, since their names do not end with img_suffix '
    assert text == f"{start}'.jpg': 1 with '.JPG'"


def test_folder_that_is_missing(root):
    text = error_of(root, data_prefix=dict(img_path='images', seg_map_path='masks'))
    assert text == 'data_prefix.seg_map_path of train_dataloader.dataset does not exist: masks'


@pytest.mark.parametrize(
    ('content', 'expected'),
    [
        ('0\n\n2\n', 'list.txt, line 2 is empty: remove it'),
        ('0\n1.jpg\n', "list.txt, line 2: write '1' in place of '1.jpg', as img_suffix"),
        ('0\n7\n', 'images/7.jpg does not exist'),
    ],
    ids=['empty line', 'suffix', 'missing image'],
)
def test_lists(content, expected, root):
    (root / 'list.txt').write_text(content)
    texts = [text for text, is_error in problems_of(root, ann_file='list.txt') if is_error]
    assert texts[0].startswith(expected)


def test_list_of_some_images(root):
    """Images that are not in the list are not checked."""
    (root / 'list.txt').write_text('0\n2\n')
    (root / 'labels/1.png').write_text('no image')
    assert problems_of(root, ann_file='list.txt') == []


def test_files_that_are_not_images(root):
    (root / 'images/1.jpg').write_text('no image')
    (root / 'labels/2.png').write_bytes(b'')
    assert {text for text, _ in problems_of(root)} == {
        'images/1.jpg is not an image',
        'the label labels/2.png is not an image',
    }


def test_label_of_another_size(root):
    write(root / 'labels/1.png', labels_of(0, 1, 2).T.copy())
    expected = 'the label labels/1.png is 6 x 8 pixels, but its image images/1.jpg is 8 x 6'
    assert error_of(root) == expected


@pytest.mark.parametrize(('color_type', 'fits'), [('color', False), ('unchanged', True)])
def test_image_turned_by_exif(color_type, fits, root):
    """OpenCV turns the image, so it no longer matches the label; 'unchanged' does not turn it."""
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    write(root / 'images/1.jpg', np.zeros((HEIGHT, WIDTH, 3), np.uint8), exif=exif)
    steps = [dict(type='LoadImageFromFile', color_type=color_type), dict(type='LoadAnnotations')]
    found = problems_of(root, pipeline=steps)
    assert (found == []) == fits
    if not fits:
        assert found[0][0].endswith('images/1.jpg is 6 x 8, turned by its EXIF orientation')


def test_label_of_colors(root):
    colors = np.array([[0, 0, 0], [128, 0, 0], [0, 128, 0]], np.uint8)
    for index in range(3):
        write(root / f'labels/{index}.png', colors[labels_of(0, 1, 2)])
    start = 'the label labels/0.png has several channels (RGB), but must have one of class numbers'
    convert = 'nat-mm convert-labels LABELS CONVERTED --map'
    text = error_of(root)
    assert text.startswith(f'{start}. Give each color the number of its class: {convert} ')
    palette = [[0, 0, 0], [0, 128, 0], [128, 0, 0]]
    text = error_of(root, metainfo=dict(classes=NAMES, palette=palette))
    assert f'{convert} 0,0,0=0 0,128,0=1 128,0,0=2' in text


def test_label_of_equal_channels(root):
    write(root / 'labels/1.png', np.repeat(labels_of(0, 1, 2)[..., None], 3, axis=2))
    text = error_of(root)
    assert text.endswith('They are equal: keep one with nat-mm convert-labels LABELS CONVERTED')


def test_palette_images(root):
    """Pillow, mmseg's default, reads the palette's indices; OpenCV reads its colors."""
    write(root / 'labels/1.png', labels_of(0, 1, 2), mode='P')
    assert problems_of(root) == []
    steps = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', imdecode_backend='cv2')]
    text = error_of(root, pipeline=steps)
    assert 'turns the values of palette and 1-bit PNGs such as labels/1.png into colors' in text
    assert "write imdecode_backend='pillow'" in text


def test_images_of_one_bit(root):
    for index in range(3):
        write(root / f'labels/{index}.png', labels_of(0, 255), mode='1')
    assert problems_of(root, metainfo=dict(classes=NAMES[:2])) == []


def test_labels_of_16_bits(root):
    write(root / 'labels/1.png', labels_of(0, 1, 2, 65535, dtype=np.uint16))
    assert problems_of(root) == []
    write(root / 'labels/1.png', labels_of(0, 1, 258, dtype=np.uint16))
    text = error_of(root)
    assert text.startswith('the label labels/1.png has values of 16 bits, such as 258')
    assert 'truncates to 2: convert with nat-mm convert-labels LABELS CONVERTED --map 258=' in text


@pytest.mark.parametrize('split', ['train', 'val'])
def test_value_beyond_the_classes(split, root):
    write(root / 'labels/1.png', labels_of(0, 1, 2, 7))
    text = error_of(root, split=split)
    start = (
        f'the label labels/1.png has the value 7, but the 3 classes of {split}_dataloader.dataset'
    )
    assert text.startswith(f'{start} are the values from 0 to 2. ')
    assert '--map 7=255' in text


@pytest.mark.parametrize(
    ('values', 'expected'),
    [
        ((1, 2, 3), 'If the first class is 1, set reduce_zero_label=True'),
        ((0, 1, 2, 3), 'If 0 is to be ignored, set reduce_zero_label=True; if 3 is,'),
        ((0, 85, 170), 'They look like gray levels for viewing: convert with'),
    ],
    ids=['from 1', 'one more', 'gray levels'],
)
def test_what_is_meant_by_values_beyond(values, expected, root):
    for index in range(3):
        write(root / f'labels/{index}.png', labels_of(*values))
    assert expected in error_of(root)


@pytest.mark.parametrize('suffix', ['.jpg', '.png', '.tif'])
def test_jpeg_labels(suffix, root):
    """JPEGs are found whatever their names and values."""
    options = dict(compression='jpeg') if suffix == '.tif' else dict(format='JPEG')
    for index in range(2):
        write(root / f'labels/{index}{suffix}', labels_of(0), **options)
    if suffix != '.png':
        write(root / f'labels/2{suffix}', labels_of(0, 1, 2), format=None)
    found = problems_of(root, seg_map_suffix=suffix)
    count = 3 if suffix == '.jpg' else 2
    assert found == [
        (
            f'the label labels/0{suffix} is a JPEG, whose compression changes the values of '
            'pixels: labels must be PNGs, made from the annotations and not from the JPEGs '
            f'(the same with {count} of 3 images)',
            True,
        )
    ]


def test_jpeg_labels_that_the_user_may_restore(root):
    @TRANSFORMS.register_module(force=True)
    class Threshold:
        def __call__(self, results):
            return results

    write(root / 'labels/1.png', labels_of(0, 255), format='JPEG')
    steps = [dict(type=each) for each in ('LoadImageFromFile', 'LoadAnnotations', 'Threshold')]
    assert 'the label labels/1.png is a JPEG' in warning_of(root, pipeline=steps)


@pytest.mark.parametrize('reduces', [False, True])
def test_masks_of_0_and_255(reduces, root):
    for index in range(3):
        write(root / f'labels/{index}.png', labels_of(0, 255))
    text = error_of(root, metainfo=dict(classes=NAMES[:2]), reduce_zero_label=reduces)
    assert 'are masks of 0 and 255, such as labels/0.png, and 255 is ignored' in text
    assert '--map 255=1' in text
    assert ('set reduce_zero_label=False' in text) == reduces


@pytest.mark.parametrize(
    ('values', 'reduces', 'expected'),
    [
        (
            [255],
            False,
            'the value 255, which is ignored, such as labels/0.png. If 255 is a class, ',
        ),
        ([255], True, 'the value 255, which is ignored, such as labels/0.png. If 255 is a class, '),
        ([0], True, 'the value 0, which is ignored, such as labels/0.png. If 0 is a class, set'),
    ],
    ids=['255', '255 reduced', '0 reduced'],
)
def test_labels_that_are_all_ignored(values, reduces, expected, root):
    for index in range(3):
        write(root / f'labels/{index}.png', labels_of(*values))
    text = error_of(root, reduce_zero_label=reduces)
    assert text.startswith(f'the labels of train_dataloader.dataset have only {expected}')


@pytest.mark.parametrize('value', [7, 255])
def test_labels_that_are_all_beyond_the_classes(value, root):
    """They are not described as ignored."""
    for index in range(3):
        write(root / f'labels/{index}.png', labels_of(value))
    padding = dict(model__data_preprocessor__seg_pad_val=3)
    text = error_of(root, **dict.fromkeys(HEADS, 3), **padding)
    assert text.startswith(f'the label labels/0.png has the value {value}, but ')


def test_values_from_1_without_the_last(root):
    for index in range(3):
        write(root / f'labels/{index}.png', labels_of(1, 2))
    expected = (
        "class 0 'road' is in none of the 3 labels of train_dataloader.dataset: if 1 is the first "
        'class, set reduce_zero_label=True'
    )
    assert warning_of(root) == expected


def test_values_from_0_with_reduced_labels(root):
    text = warning_of(root, reduce_zero_label=True)
    assert text.startswith("class 2 'tree' is in none of the 3 labels of train_dataloader.dataset")
    assert text.endswith('if 0 is the first class, set reduce_zero_label=False')


def test_reduced_labels(root):
    for index in range(3):
        write(root / f'labels/{index}.png', labels_of(0, 1, 2, 3, 255))
    assert problems_of(root, reduce_zero_label=True) == []
    write(root / 'labels/1.png', labels_of(4))
    text = error_of(root, reduce_zero_label=True)
    assert 'has the value 4, but the 3 classes' in text
    assert 'are the values from 1 to 3, as reduce_zero_label=True ignores 0' in text


def test_reduced_in_one_place_only(root):
    steps = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', reduce_zero_label=True)]
    text = error_of(root, pipeline=steps)
    assert 'reduce_zero_label is False in train_dataloader.dataset, but True in its' in text


def test_unused_class(root):
    text = warning_of(
        root, metainfo=dict(classes=(*NAMES, 'bus')), model__decode_head__num_classes=4
    )
    assert text == "the class 'bus' is in none of the 3 labels of train_dataloader.dataset"


HEADS = ('model__decode_head__ignore_index', 'model__auxiliary_head__0__ignore_index')


def test_own_value_that_is_ignored(root):
    for index in range(3):
        write(root / f'labels/{index}.png', labels_of(0, 1, 2, 3))
    settings = dict.fromkeys(HEADS, 3)
    padding = dict(model__data_preprocessor__seg_pad_val=3)
    assert problems_of(root, **settings, **padding) == []
    assert 'training fails where an image is padded' in warning_of(root, **settings)
    (text,) = [text for text, is_error in problems_of(root, **{HEADS[0]: 3}) if is_error]
    assert 'model.decode_head.ignore_index is 3: set model.auxiliary_head.0.ignore_index' in text
    text = warning_of(root, split='val', **settings)
    assert 'are 3: set val_evaluator.ignore_index to it too' in text
    assert problems_of(root, split='val', **settings, val_evaluator__ignore_index=3) == []
    # In pure Python configs, types are classes.
    evaluator = dict(val_evaluator__type=IoUMetric, val_evaluator__ignore_index=3)
    assert problems_of(root, split='val', **evaluator) == []


def test_subset_of_the_classes_of_a_dataset(root):
    """mmseg maps the labels of other classes to 255, by the names that the dataset defines."""
    for index in range(3):
        write(root / f'labels/{index}.png', labels_of(0, 1, 18, 255))
    classes = dict(classes=('road', 'bicycle'))
    kind = dict(type='CityscapesDataset', img_suffix='.jpg', seg_map_suffix='.png')
    assert problems_of(root, **kind, metainfo=classes) == []
    write(root / 'labels/1.png', labels_of(33))
    assert 'has the value 33' in error_of(root, **kind, metainfo=classes)


def test_transforms_of_the_user_may_change_values(root):
    @TRANSFORMS.register_module(force=True)
    class TakeFromTable:
        def __call__(self, results):
            return results

    write(root / 'labels/1.png', labels_of(0, 1, 2, 7))
    steps = [dict(type=each) for each in ('LoadImageFromFile', 'LoadAnnotations', 'TakeFromTable')]
    assert 'has the value 7' in warning_of(root, pipeline=steps)


def test_samples_of_several_images(root):
    @DATASETS.register_module(force=True)
    class Pairs(BaseSegDataset):
        def load_data_list(self):
            folder = self.data_prefix.pop('img_path_from')
            self.data_prefix['img_path'] = folder
            entries = super().load_data_list()
            self.data_prefix = {'img_path_from': folder}
            return [{**each, 'img_path': [each['img_path']] * 2} for each in entries]

    write(root / 'labels/1.png', labels_of(0, 1, 2, 7))
    folders = dict(_delete_=True, img_path_from='images', seg_map_path='labels')
    assert 'the label labels/1.png has the value 7' in error_of(
        root, type='Pairs', data_prefix=folders
    )


def test_sample_of_many(root):
    for index in range(150):
        write(root / f'images/{index:03}.jpg', np.zeros((HEIGHT, WIDTH, 3), np.uint8))
        write(root / f'labels/{index:03}.png', labels_of(0, 1, 2))
    names = sorted(path.stem for path in (root / 'labels').iterdir())
    unread = sorted(set(names) - set(spread(names, 100)))[0]
    write(root / f'labels/{unread}.png', labels_of(7))
    assert problems_of(root) == []
    assert f'the label labels/{unread}.png has the value 7' in error_of(root, thorough=True)


def test_panoptic_segments(root):
    init_default_scope('mmdet')
    images = [
        dict(id=index, file_name=f'{index}.jpg', height=HEIGHT, width=WIDTH) for index in range(3)
    ]
    annotations = [
        dict(image_id=index, file_name=f'{index}.png', segments_info=[]) for index in range(3)
    ]
    Config(dict(images=images, annotations=annotations, categories=[])).dump(root / 'a.json')
    dataset = dict(
        type='CocoPanopticDataset',
        data_root=str(root),
        ann_file='a.json',
        data_prefix=dict(img='images', seg='labels'),
        pipeline=[dict(type='LoadPanopticAnnotations')],
    )
    config = Config(dict(default_scope='mmdet', model={}, train_dataloader=dict(dataset=dataset)))
    write(root / 'labels/0.png', np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    write(root / 'labels/1.png', np.zeros((HEIGHT, WIDTH + 1, 3), np.uint8))
    (source,) = find_sources(config, 'train')
    texts = {
        each.text.replace(f'{root}/', '')
        for each in find_label_image_problems(source, config=config)
    }
    assert len(texts) == 2
    assert 'the label labels/1.png is 9 x 6 pixels, but its image images/1.jpg is 8 x 6' in texts
    assert any(
        text.startswith('the panoptic label labels/2.png has one channel (L)') for text in texts
    )


def problems_of_detector(root, **loading):
    """Checks the labels of a semantic branch with two classes."""
    init_default_scope('mmdet')
    images = [dict(id=0, file_name='0.jpg', height=HEIGHT, width=WIDTH)]
    category = dict(id=1, name='person')
    Config(dict(images=images, annotations=[], categories=[category])).dump(root / 'a.json')
    dataset = dict(
        type='CocoDataset',
        data_root=str(root),
        ann_file='a.json',
        data_prefix=dict(img='images', seg='labels'),
        pipeline=[dict(type='LoadAnnotations', with_bbox=True, with_seg=True, **loading)],
    )
    head = dict(type='FusedSemanticHead', num_classes=2)
    config = Config(
        dict(
            default_scope='mmdet',
            model=dict(roi_head=dict(semantic_head=head)),
            train_dataloader=dict(dataset=dataset),
        )
    )
    (source,) = find_sources(config, 'train')
    return list(find_label_image_problems(source, config=config))


def test_semantic_labels_of_a_detector(root):
    (problem,) = problems_of_detector(root)
    assert 'labels/0.png has the value 2, but the 2 classes' in problem.text


def test_reduced_semantic_labels_of_a_detector(root):
    write(root / 'labels/0.png', labels_of(0, 2))
    (problem,) = problems_of_detector(root, reduce_zero_label=True)
    expected = 'the class 0 is in none of the 1 labels of train_dataloader.dataset'
    assert (problem.text, problem.is_error) == (expected, False)
