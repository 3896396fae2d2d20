"""Tests folders and lists that define the classes of a classifier's images."""

import numpy as np
import pytest
from mmcv.transforms import LoadImageFromFile
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.registry import METRICS, TRANSFORMS, init_default_scope
from PIL import Image

from nat_mm.config.datasets import SPLITS
from nat_mm.data.class_counts import find_class_count_problems
from nat_mm.data.folders import find_class_names, find_folder_problems
from nat_mm.data.sources import find_sources

NAMES = ('bird', 'cat', 'dog')


@pytest.fixture
def root(tmp_path):
    """Folders train and val, each with a folder of two images for each class."""
    for split in ('train', 'val'):
        for name in NAMES:
            for index in range(2):
                write_image(tmp_path / split / name / f'{index}.png')
    return tmp_path


def write_image(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((4, 5, 3), np.uint8)).save(path)


def make_config(root, train=None, val=None, count=3):
    def dataset(split, settings):
        own = dict(type='CustomDataset', data_root=str(root), data_prefix=split, pipeline=[])
        return dict(dataset={**own, **(settings or {})})

    init_default_scope('mmpretrain')
    return Config(
        dict(
            default_scope='mmpretrain',
            model=dict(type='ImageClassifier', head=dict(type='LinearClsHead', num_classes=count)),
            train_dataloader=dataset('train', train),
            val_dataloader=dataset('val', val),
            test_dataloader=dataset('val', val),
        )
    )


def problems_of(root, train=None, val=None, count=3):
    config = make_config(root, train, val, count)
    sources = {split: find_sources(config, split) for split in SPLITS}
    found = find_folder_problems(config, sources)
    return [(each.text.replace(f'{root}/', ''), each.is_error) for each in found]


def error_of(root, **options):
    ((text, is_error),) = problems_of(root, **options)
    assert is_error, text
    return text


def warning_of(root, **options):
    ((text, is_error),) = problems_of(root, **options)
    assert not is_error, text
    return text


def remove(folder):
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()


def test_sound_folders(root):
    assert problems_of(root) == []
    assert problems_of(root, train=dict(metainfo=dict(classes=NAMES))) == []


def test_own_loaders_may_read_other_files(root):
    @TRANSFORMS.register_module()
    class LoadArray(LoadImageFromFile):
        pass

    (root / 'train/cat/0.png').write_bytes(b'\x93NUMPY')
    assert 'is not an image' in error_of(root)
    try:
        assert problems_of(root, train=dict(pipeline=[dict(type='LoadArray')])) == []
    finally:
        del TRANSFORMS._module_dict['LoadArray']


def test_validation_lacks_a_class(root):
    """All labels after the missing class would be wrong, without any error from mmpretrain."""
    remove(root / 'val/cat')
    expected = (
        "the folders of val and train differ: val lacks the classes 'cat' of train (make empty "
        'folders for those without images: mkdir val/cat); mmpretrain numbers the folders of each '
        "split for itself, so 'dog' is class 2 in train and 1 in val"
    )
    assert error_of(root) == expected
    (root / 'val/cat').mkdir()
    assert problems_of(root) == []


def test_validation_has_another_class(root):
    write_image(root / 'val/ant/0.png')
    text = error_of(root)
    assert "val has the classes 'ant', which train lacks" in text
    assert "so 'bird' is class 0 in train and 1 in val" in text


def test_last_class_is_missing(root):
    remove(root / 'val/dog')
    assert "val lacks the classes 'dog' of train" in error_of(root)


def test_name_is_spelt_differently(root):
    """The class numbers stay the same, so nothing is learned or measured wrongly."""
    (root / 'val/dog').rename(root / 'val/dogs')
    assert "lacks the classes 'dog' of train" in warning_of(root)


def test_hidden_folder(root):
    (root / 'train/.ipynb_checkpoints').mkdir()
    texts = [text for text, _ in problems_of(root)]
    assert any("train has the hidden folders '.ipynb_checkpoints'" in text for text in texts)
    assert any("so 'bird' is class 1 in train and 0 in val" in text for text in texts)


@pytest.mark.parametrize('classes', [('cat', 'dog', 'bird'), ('dog', 'cat', 'bird')])
def test_classes_in_another_order(classes, root):
    text = error_of(root, train=dict(metainfo=dict(classes=classes)))
    assert text.startswith(f"train: the images in 'bird' would be called {classes[0]!r}")
    assert text.endswith("metainfo.classes in that order: ('bird', 'cat', 'dog')")


@pytest.mark.parametrize('kind', ['ShapeBiasMetric', 'OwnAccuracy', 'Accuracy'])
def test_metrics_with_other_classes_than_the_model(kind, root):
    """The test data's two classes are no mistake if a metric assigns the model's to them."""

    @METRICS.register_module()
    class OwnAccuracy(BaseMetric):
        def process(self, data_batch, data_samples):
            pass

        compute_metrics = None

    for name in ('airplane', 'bear'):
        write_image(root / 'cues' / name / '0.png')
    config = make_config(root)
    config.test_dataloader.dataset.data_prefix = 'cues'
    config.test_evaluator = dict(type=kind)
    sources = {split: find_sources(config, split) for split in SPLITS}
    try:
        found = list(find_folder_problems(config, sources))
        found += find_class_count_problems(config, {'test': sources['test']})
    finally:
        del METRICS._module_dict['OwnAccuracy']
    assert len(found) == (2 if kind == 'Accuracy' else 0)


def test_titles_of_classes(root):
    """Class names other than the folders', such as ImageNet's, are in the order of the folders."""
    assert problems_of(root, train=dict(classes=['Bird', 'Cat', 'Dog'])) == []


def test_other_number_of_classes(root):
    text = error_of(root, train=dict(metainfo=dict(classes=(*NAMES, 'fox'))))
    assert text.startswith(
        "train has folders of 3 classes ('bird', 'cat', 'dog'), but CustomDataset"
    )
    assert text.endswith("expects 4: the classes without a folder are 'fox'")
    text = error_of(root, train=dict(type='ImageNet'))
    assert text.endswith(
        'expects 1000: set metainfo.classes, or type=CustomDataset for any classes'
    )


def test_empty_folder(root):
    (root / 'train/cat/0.png').unlink()
    (root / 'train/cat/1.png').unlink()
    assert warning_of(root) == "train has class folders without images: 'cat'"


def test_missing_folder(root):
    text = error_of(root, val=dict(data_prefix='gone'))
    assert text == 'the folder of CustomDataset does not exist: gone'


def test_folder_without_classes(root):
    text = error_of(root, val=dict(data_prefix='val/cat'))
    assert text == 'val/cat has no folders with images, one for each class'


def test_images_beside_the_folders(root):
    write_image(root / 'train/0.png')
    expected = "train has images outside the class folders, which are ignored: '0.png'"
    assert warning_of(root) == expected


def test_files_of_other_kinds(root):
    (root / 'train/cat/2.webp').touch()
    text = warning_of(root)
    assert text.startswith('train has files that are ignored, since their names end with none of ')
    assert text.endswith(": 'cat/2.webp'")


def test_broken_images(root):
    (root / 'train/cat/0.png').write_text('no image')
    (root / 'train/dog/0.png').write_bytes(b'')
    expected = 'train/cat/0.png is not an image (and 1 more images cannot be read)'
    assert error_of(root) == expected


def listed(root, text, **settings):
    (root / 'list.txt').write_text(text)
    return dict(ann_file='list.txt', data_prefix='train', **settings)


SOUND = 'bird/0.png 0\ncat/0.png 1\ndog/0.png 2\n'


def test_sound_list(root):
    assert problems_of(root, train=listed(root, SOUND), val=listed(root, SOUND)) == []


@pytest.mark.parametrize(
    ('line', 'expected'),
    [
        ('cat/1.png 3', 'the class of cat/1.png is 3, but classes are numbered from 0 to 2'),
        ('cat/1.png -1', 'the class of cat/1.png is -1, but classes are numbered from 0 to 2'),
        ('cat/1.png', "'cat/1.png' does not end with a blank and the number of a class"),
        ('cat/1.png cat', "'cat/1.png cat' does not end with a blank and the number of a class"),
        ('cat/1.png,1', "'cat/1.png,1' has a comma before the number of the class, not a blank"),
        ('cat/1.png\t1', "'cat/1.png\\t1' has a tab before the number of the class, not a blank"),
        ('', 'it is empty: remove it'),
    ],
    ids=['beyond', 'negative', 'no class', 'name', 'comma', 'tab', 'empty'],
)
def test_lines(line, expected, root):
    lists = listed(root, f'{SOUND}{line}\n')
    text = error_of(root, train=lists, val=lists)
    assert text.startswith(f'list.txt, line 4: {expected}')


def test_list_that_begins_at_1(root):
    lists = listed(root, 'bird/0.png 1\ncat/0.png 2\ndog/0.png 3\n')
    text = error_of(root, train=lists, val=lists)
    assert text.endswith('but classes are numbered from 0 to 2; this list begins at 1')


@pytest.mark.parametrize(
    ('path', 'expected'),
    [
        ('cat/9.png', 'train/cat/9.png does not exist'),
        ('cat\\0.png', 'train/cat\\0.png does not exist: write / in the list, not \\'),
    ],
)
def test_images_of_a_list(path, expected, root):
    lists = listed(root, f'{SOUND}{path} 1\n')
    assert error_of(root, train=lists, val=lists) == expected


def test_list_without_labels(root):
    lists = listed(root, 'bird/0.png\ncat/0.png\n', with_label=False)
    assert problems_of(root, train=lists, val=lists) == []


def test_list_that_names_an_image_twice(root):
    lists = listed(root, f'{SOUND}cat/0.png 2\n')
    text = warning_of(root, train=lists, val=lists)
    assert text == 'list.txt, line 4: cat/0.png has the class 2, but before it had 1'


def test_list_that_lacks_a_class(root):
    lists = listed(root, 'bird/0.png 0\ndog/0.png 2\n', metainfo=dict(classes=NAMES))
    text = warning_of(root, train=lists, val=lists)
    assert text == "list.txt has no image of the classes 'cat'"


def test_list_against_folders(root):
    lists = listed(root, 'dog/0.png 0\ncat/0.png 1\n')
    text = error_of(root, val=lists)
    assert text.startswith('list.txt: the class of dog/0.png is 0, but in train the folder')
    assert "'dog' is class 2" in text


@pytest.mark.parametrize('kind', ['missing', 'empty', 'not text'])
def test_list_that_cannot_be_read(kind, root):
    lists = listed(root, '')
    if kind == 'missing':
        (root / 'list.txt').unlink()
    elif kind == 'not text':
        (root / 'list.txt').write_bytes(b'\xff\xfe\x00')
    text = error_of(root, val=lists)
    assert {'missing': 'does not exist', 'empty': 'is empty', 'not text': 'not text'}[kind] in text


def test_other_datasets_and_frameworks_are_left_alone(root):
    config = make_config(root)
    for split in SPLITS:
        config[f'{split}_dataloader'] = dict(dataset=dict(type='CIFAR10', data_prefix='gone'))
    sources = {split: find_sources(config, split) for split in SPLITS}
    assert list(find_folder_problems(config, sources)) == []
    config.default_scope = 'mmdet'
    assert list(find_folder_problems(config, sources)) == []


def test_class_names(root):
    config = make_config(root)
    (source,) = find_sources(config, 'train')
    assert find_class_names(source) == list(NAMES)
    assert find_class_names(source, from_folders=False) is None
