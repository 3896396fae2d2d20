"""Tests that tools/predict.py and tools/test.py see the same images and write the same results."""

import json
import pickle
import shutil

import cv2
import numpy as np
import pytest
from PIL import Image

from nat_mm.errors import UserError
from nat_mm.inference.evaluation_files import ImageNames

PARTS = ('cam0', 'cam1')


@pytest.fixture
def two_folders(small_data, tmp_path):
    """Images and label images with the same names in two folders, and their COCO annotations."""
    root = tmp_path / 'data'
    coco = json.loads((small_data / 'coco' / 'validation.json').read_text())
    for image in coco['images']:
        name = image['file_name']
        image['file_name'] = f'{PARTS[image["id"] % 2]}/{image["id"] // 2:02d}.jpg'
        for kind, suffix in (('images', '.jpg'), ('annotations', '.png')):
            new = (root / kind / image['file_name']).with_suffix(suffix)
            new.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy((small_data / kind / 'validation' / name).with_suffix(suffix), new)
    (root / 'coco.json').write_text(json.dumps(coco))
    return root


NAMES = ['cam0/00', 'cam0/01', 'cam1/00']


def write_config(base, path, text):
    path.write_text(f"_base_ = '{base}'\n{text}")
    return str(path)


def found_below(folder):
    files = (path.relative_to(folder) for path in folder.rglob('*') if path.is_file())
    return sorted(path.as_posix() for path in files)


def test_segmentor_of_16_bits(configs, trained, test, predict, two_folders, tmp_path):
    """Images are loaded as the config says, from folders with files of the same names."""
    images = two_folders / 'images'
    for path in images.rglob('*.jpg'):
        deep = cv2.imread(str(path)).astype(np.uint16) * 257
        cv2.imwrite(str(path.with_suffix('.png')), deep)
        path.unlink()
    config = write_config(
        configs['segmentation'],
        tmp_path / 'deep.py',
        f"""
mean, std = [123.675 * 257, 116.28 * 257, 103.53 * 257], [58.395 * 257, 57.12 * 257, 57.375 * 257]
model = dict(data_preprocessor=dict(mean=mean, std=std))
test_dataloader = dict(dataset=dict(
    data_root='{two_folders}', img_suffix='.png',
    data_prefix=dict(img_path='images', seg_map_path='annotations'),
    pipeline=[
        dict(type='LoadImageFromFile', color_type='unchanged', to_float32=True),
        dict(type='LoadAnnotations', reduce_zero_label=True), dict(type='PackSegInputs')]))
""",
    )
    model = [config, str(trained['segmentation'])]
    out, shown = tmp_path / 'tested', tmp_path / 'shown'
    options = ['--out', str(out), '--show-dir', str(shown), '--work-dir', str(tmp_path / 'work')]
    test([*model, *options])
    predict([*model, str(images / '**' / '*.png'), '--out-dir', str(tmp_path / 'predicted')])
    assert found_below(shown) == [f'{name}.png' for name in NAMES]
    assert found_below(out) == [f'{name}.png' for name in NAMES]
    results = tmp_path / 'predicted' / 'results'
    assert found_below(results) == [f'{name}.png' for name in NAMES]
    for name in NAMES:
        tested, predicted = (
            cv2.imread(str(folder / f'{name}.png'), cv2.IMREAD_UNCHANGED)
            for folder in (out, results)
        )
        np.testing.assert_array_equal(tested, predicted)
        assert set(np.unique(tested)) <= {1, 2, 3}
    shades = np.unique(cv2.imread(str(tmp_path / 'predicted' / 'images' / 'cam0' / '00.jpg')))
    assert len(shades) > 50


def test_detector_of_photographs_on_their_side(
    configs, trained, test, predict, two_folders, tmp_path
):
    """The config's loader does not rotate the images; both folders have files of the same names."""
    images = two_folders / 'images'
    exif = Image.Exif()
    exif[0x0112] = 6
    for path in images.rglob('*.jpg'):
        Image.open(path).save(path, exif=exif)
    config = write_config(
        configs['detection'],
        tmp_path / 'sideways.py',
        f"""
test_pipeline = [
    dict(type='LoadImageFromFile', color_type='color_ignore_orientation',
         imdecode_backend='pillow', backend_args=None),
    dict(type='Resize', scale=(128, 96), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='PackDetInputs',
         meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'))]
test_dataloader = dict(dataset=dict(
    data_root='{two_folders}', ann_file='coco.json', data_prefix=dict(img='images'),
    pipeline=test_pipeline))
test_evaluator = dict(ann_file='{two_folders}/coco.json')
""",
    )
    model = [config, str(trained['detection'])]
    out, shown = tmp_path / 'out.pkl', tmp_path / 'shown'
    options = ['--out', str(out), '--show-dir', str(shown), '--work-dir', str(tmp_path / 'work')]
    test([*model, *options])
    predict(
        [*model, *(str(images / part) for part in PARTS)]
        + ['--out-dir', str(tmp_path / 'predicted'), '--score-threshold', '0']
    )
    assert found_below(shown) == [f'{name}.jpg' for name in NAMES]
    assert found_below(tmp_path / 'predicted' / 'results') == [f'{name}.json' for name in NAMES]
    tested = {
        each['img_path'].removeprefix(f'{images}/'): each['pred_instances']
        for each in pickle.loads(out.read_bytes())
    }
    for name in NAMES:
        result = json.loads((tmp_path / 'predicted' / 'results' / f'{name}.json').read_text())
        assert (result['image'], result['height'], result['width']) == (f'{name}.jpg', 96, 128)
        instances = tested[f'{name}.jpg']
        boxes = [instance['bbox'] for instance in result['instances']]
        np.testing.assert_allclose(boxes, instances['bboxes'].numpy(), atol=1e-4)
        scores = [instance['score'] for instance in result['instances']]
        np.testing.assert_allclose(scores, instances['scores'].numpy(), atol=1e-6)
    listed = json.loads((tmp_path / 'predicted' / 'coco' / 'images.json').read_text())['images']
    assert [image['file_name'] for image in listed] == [f'{name}.jpg' for name in NAMES]


def test_video_and_folder_of_one_name(predict, tmp_path):
    """The results of the video's images would be mixed with those of the folder."""
    (tmp_path / 'a').mkdir()
    for name in ('a.mp4', 'a/x.jpg', 'x.jpg'):
        (tmp_path / name).touch()
    with pytest.raises(UserError, match=r'results of .*a/x\.jpg would be among those of .*a\.mp4'):
        predict(
            ['c.py', 'w.pth', *(str(tmp_path / name) for name in ('a.mp4', 'a/x.jpg', 'x.jpg'))]
        )


class Dataset:
    def __init__(self, data_root='', **prefixes):
        self.data_root = data_root
        self.data_prefix = prefixes


class Wrapper:
    def __init__(self, *datasets):
        self.datasets = datasets


@pytest.mark.parametrize(
    ('dataset', 'image', 'expected'),
    [
        (Dataset(img='/data/val'), '/data/val/a/1.jpg', 'a/1.png'),
        (Dataset(img='/data/val/'), '/data/val/1.v2.jpg', '1.v2.png'),
        (Dataset(img_path='/data/val'), '/data/validation/1.jpg', 'data/validation/1.png'),
        (Dataset(img='/data/val'), '/data/val/../../etc/1.jpg', 'etc/1.png'),
        (Dataset(img=''), 's3://bucket/../a/1.jpg', 'a/1.png'),
        (Wrapper(Dataset(img='/a/val'), Dataset(img='/b/val')), '/b/val/1.jpg', 'b/val/1.png'),
        (Dataset('/voc', sub_data_root='/voc/2007'), '/voc/2007/img/1.jpg', '2007/img/1.png'),
        (object(), '/data/1.jpg', 'data/1.png'),
    ],
    ids=['below', 'dot', 'beside', 'above', 'elsewhere', 'two datasets', 'root', 'no folder'],
)
def test_names_of_files_about_images(dataset, image, expected, tmp_path):
    assert ImageNames(dataset, tmp_path).path(image, '.png') == tmp_path / expected


def test_names_of_images_that_differ_by_their_suffix(tmp_path):
    names = ImageNames(Dataset(img='/data'), tmp_path)
    images = ['1.jpg', '1.tif', '1.jpg', '1.tif.bmp', '1.tif', '1.tif.bmp']
    files = [names.path(f'/data/{image}', '.png').name for image in images]
    assert files == ['1.png', '1.tif.png', '1.png', '1.tif.bmp.png', '1.tif.png', '1.tif.bmp.png']
