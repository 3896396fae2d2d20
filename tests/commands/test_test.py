"""Tests tools/test.py: metrics, images, saved predictions, and what it refuses."""

import csv
import json
import os
import pickle
import shutil
from argparse import Namespace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmcv.transforms import LoadImageFromFile
from mmdet.evaluation import CocoMetric
from mmengine.config import Config
from mmengine.fileio import LocalBackend
from mmengine.registry import DATASETS, HOOKS, TRANSFORMS
from mmseg.datasets import BaseSegDataset
from mmseg.engine import SegVisualizationHook
from mmseg.structures import SegDataSample

from nat_mm.checkpoints import read_checkpoint
from nat_mm.commands.test import augment, drawing_hook
from nat_mm.errors import UserError
from nat_mm.inference.evaluation_files import DrawingHook, LabelImageHook
from tests.loading import forget_visualizers


def metrics(work_dir):
    """Returns the metrics of the run in a work directory."""
    (path,) = work_dir.glob('*/*.json')
    return json.loads(path.read_text())


def read_table(work_dir, name):
    """Reads the rows of a CSV file of the run in a work directory."""
    (path,) = work_dir.glob(f'*/{name}')
    return list(csv.DictReader(path.read_text().splitlines()))


def confusion(work_dir):
    """Returns the confusion matrix of that run, after checking that it was also drawn."""
    (path,) = work_dir.glob('*/confusion_matrix.png')
    assert cv2.imread(str(path)) is not None
    rows = read_table(work_dir, 'confusion_matrix.csv')
    return np.array([[int(row[name]) for name in list(row)[1:]] for row in rows])


@pytest.fixture
def mistake(test, configs, tmp_path):
    """Runs a test that must be refused and returns the message."""

    def run(checkpoint, *arguments, task='detection'):
        work_dir = ['--work-dir', str(tmp_path / 'work_dir')]
        with pytest.raises(UserError) as raised:
            test([str(configs[task]), str(checkpoint), *work_dir, *arguments])
        return str(raised.value)

    return run


def test_detector(test, configs, trained, tmp_path, capsys):
    test(
        [
            str(configs['detection']),
            str(trained['detection']),
            *('--work-dir', str(tmp_path)),
            *('--show-dir', str(tmp_path / 'shown')),
            *('--out', str(tmp_path / 'out.pkl')),
        ]
    )
    measured = metrics(tmp_path)
    assert {'coco/bbox_mAP', 'coco/segm_mAP'} <= measured.keys()
    box, disc = read_table(tmp_path, 'class_scores.csv')
    assert [box['class'], disc['class']] == ['box', 'disc']
    assert [box['objects'], disc['images']] == ['3', '3']
    for kind, key in (('box', 'bbox'), ('mask', 'segm')):
        mean = (float(box[f'{kind} AP']) + float(disc[f'{kind} AP'])) / 2
        assert mean == pytest.approx(measured[f'coco/{key}_mAP'], abs=0.001)
    counts = confusion(tmp_path)
    assert counts.shape == (3, 3)
    assert counts[:2].sum(axis=1).tolist() == [3, 3]
    assert 'box AP50' in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / 'shown').iterdir()) == [
        '00.jpg',
        '01.jpg',
        '02.jpg',
    ]
    predictions = pickle.loads((tmp_path / 'out.pkl').read_bytes())
    assert len(predictions) == 3
    assert {'bboxes', 'scores', 'labels', 'masks'} <= predictions[0]['pred_instances'].keys()
    (log,) = tmp_path.glob('*/*.log')
    assert f'Predictions are saved in {tmp_path}/out.pkl\n' in log.read_text()


@pytest.mark.parametrize('task', ['detection', 'segmentation'])
def test_fewer_colors_than_classes(test, configs, trained, tmp_path, task):
    """mmdet's visualizer and mmseg's dataset refuse such a palette."""
    test(
        [
            str(configs[task]),
            str(trained[task]),
            *('--work-dir', str(tmp_path)),
            *('--show-dir', str(tmp_path / 'shown')),
            *('--cfg-options', 'test_dataloader.dataset.metainfo.palette=[[9,99,199]]'),
        ]
    )
    assert len(list((tmp_path / 'shown').rglob('*.*g'))) == 3


def test_segmentor(test, configs, trained, tmp_path):
    test(
        [
            str(configs['segmentation']),
            str(trained['segmentation']),
            *('--work-dir', str(tmp_path)),
            *('--show-dir', str(tmp_path / 'shown')),
            *('--out', str(tmp_path / 'out')),
        ]
    )
    assert 0 < metrics(tmp_path)['mIoU'] < 100
    counts = confusion(tmp_path)
    assert counts.shape == (3, 3)
    assert counts.sum() == 3 * 96 * 128
    assert np.diagonal(counts).sum() / counts.sum() == pytest.approx(
        metrics(tmp_path)['aAcc'] / 100, abs=1e-4
    )
    assert len(list((tmp_path / 'shown').rglob('*.png'))) == 3
    labels = cv2.imread(str(tmp_path / 'out' / '00.png'), cv2.IMREAD_UNCHANGED)
    assert labels.shape == (96, 128)


def test_detector_with_tta(test, configs, trained, tmp_path):
    """The work directory is that of the training."""
    of_training = tmp_path / configs['detection'].name
    of_training.write_text('# as trained')
    arguments = [str(configs['detection']), str(trained['detection']), '--tta']
    test([*arguments, '--work-dir', str(tmp_path)])
    assert of_training.read_text() == '# as trained'
    (of_test,) = tmp_path.glob(f'*/{of_training.name}')
    assert Config.fromfile(of_test).model.type == 'DetTTAModel'
    measured = metrics(tmp_path)
    assert 'coco/bbox_mAP' in measured
    assert 'coco/segm_mAP' not in measured


@pytest.mark.parametrize(
    ('roi_head', 'has_masks'),
    [
        ({'mask_head': {'type': 'FCNMaskHead'}, 'mask_roi_extractor': {}}, True),
        ({'mask_head': None, 'mask_roi_extractor': None}, False),
        ({}, False),
        (None, False),
    ],
    ids=['masks', 'no masks', 'boxes', 'one stage'],
)
def test_tta_drops_the_mask_head_that_there_is(roi_head, has_masks, capsys):
    metric = ['bbox', 'segm']
    config = Config(
        dict(
            default_scope='mmdet',
            model=dict(roi_head=roi_head),
            test_dataloader=dict(dataset=dict(pipeline=[])),
            test_evaluator=dict(type='CocoMetric', metric=metric),
            tta_model=dict(type='DetTTAModel'),
            tta_pipeline=[dict(type='LoadImageFromFile')],
        )
    )
    augment(config, Namespace(config='config.py'))
    message = 'mmdetection merges only boxes, so --tta does not test the masks\n'
    assert capsys.readouterr().out == (message if has_masks else '')
    assert config.test_evaluator.metric == ('bbox' if has_masks else metric)
    assert not (config.model.module.roi_head or {}).get('mask_head')
    assert config.test_dataloader.dataset.pipeline == config.tta_pipeline


def test_tta_measures_boxes_alone_whatever_names_the_metric():
    config = Config(
        dict(
            default_scope='mmdet',
            model=dict(roi_head=dict(mask_head=dict(type='FCNMaskHead'))),
            test_dataloader=dict(dataset={}),
            test_evaluator=[
                dict(type=kind, metric='segm') for kind in ('mmdet.CocoMetric', CocoMetric)
            ],
            tta_model=dict(type='DetTTAModel'),
            tta_pipeline=[dict(type='LoadImageFromFile')],
        )
    )
    augment(config, Namespace(config='config.py'))
    assert [each.metric for each in config.test_evaluator] == ['bbox', 'bbox']


def test_segmentor_with_tta(test, configs, trained, tmp_path):
    arguments = [str(configs['segmentation']), str(trained['segmentation']), '--tta']
    test([*arguments, '--work-dir', str(tmp_path)])
    assert 0 < metrics(tmp_path)['mIoU'] < 100


def test_missing_checkpoint(mistake):
    assert mistake('gone.pth') == 'checkpoint not found: gone.pth'


def test_truncated_checkpoint(mistake, trained, tmp_path):
    content = trained['detection'].read_bytes()
    (tmp_path / 'half.pth').write_bytes(content[: len(content) // 2])
    message = mistake(tmp_path / 'half.pth')
    assert f'{tmp_path}/half.pth' in message
    assert 'truncated' in message


def test_file_that_is_no_checkpoint(mistake, configs):
    assert str(configs['detection']) in mistake(configs['detection'])


def test_hostile_checkpoint(mistake, tmp_path):
    class Attack:
        def __reduce__(self):
            return open, (str(tmp_path / 'attacked'), 'w')

    torch.save({'state_dict': {}, 'meta': Attack()}, tmp_path / 'hostile.pth')
    assert f'{tmp_path}/hostile.pth is refused' in mistake(tmp_path / 'hostile.pth')
    assert not (tmp_path / 'attacked').exists()


def test_checkpoint_of_the_other_task(mistake, trained):
    """Only the backbones are the same."""
    message = mistake(trained['segmentation'])
    assert 'has another architecture than the model' in message
    assert "Not in the model: 'auxiliary_head." in message


def test_checkpoint_of_another_order_of_classes(mistake, trained, tmp_path):
    checkpoint = read_checkpoint(str(trained['detection']))
    meta = checkpoint['meta']['dataset_meta']
    meta['classes'] = meta['classes'][::-1]
    torch.save(checkpoint, tmp_path / 'reversed.pth')
    message = mistake(tmp_path / 'reversed.pth')
    assert f'in another order than those that {tmp_path}/reversed.pth was trained on' in message
    assert "class 0 is 'box', there it is 'disc'. Put metainfo.classes" in message


def test_checkpoint_of_another_width(mistake, trained):
    message = mistake(trained['detection'], '--cfg-options', 'model.rpn_head.feat_channels=16')
    assert "Wrong shape: 'rpn_head.rpn_" in message


def test_checkpoint_without_a_key_that_fits(mistake, tmp_path):
    torch.save({'state_dict': {'other.weight': torch.zeros(1)}}, tmp_path / 'other.pth')
    assert "fits the model: it has 'other.weight'" in mistake(tmp_path / 'other.pth')


def test_keys_that_the_model_does_not_have_are_named(test, configs, trained, tmp_path, capsys):
    checkpoint = read_checkpoint(str(trained['segmentation']))
    checkpoint['state_dict']['extra.weight'] = torch.zeros(1)
    torch.save(checkpoint, tmp_path / 'extra.pth')
    test([str(configs['segmentation']), str(tmp_path / 'extra.pth'), '--work-dir', str(tmp_path)])
    assert "has keys that the model does not: 'extra.weight'" in capsys.readouterr().err


def test_output_of_a_detector_must_be_a_pickle(mistake, trained):
    assert '--out of a detector must end with .pkl' in mistake(
        trained['detection'], '--out', 'out.json'
    )


def test_full_disk_keeps_earlier_predictions(test, configs, trained, tmp_path, monkeypatch):
    def fail(backend, content, path):
        path = Path(path)
        if path.suffix != '.pkl':
            return put(backend, content, path)
        path.write_text('half')
        raise OSError(28, 'No space left on device')

    put = LocalBackend.put
    monkeypatch.setattr(LocalBackend, 'put', fail)
    out = tmp_path / 'out' / 'out.pkl'
    out.parent.mkdir()
    out.write_text('earlier')
    model = [str(configs['detection']), str(trained['detection'])]
    with pytest.raises(UserError, match=f'^cannot write {out}: No space left on device$'):
        test([*model, '--work-dir', str(tmp_path / 'run'), '--out', str(out)])
    assert [out.read_text(), *os.listdir(out.parent)] == ['earlier', 'out.pkl']


def test_full_disk_leaves_no_drawing(test, configs, trained, tmp_path, monkeypatch):
    def fail(image, path):
        Path(path).touch()
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr('mmcv.imwrite', fail)
    model = [str(configs['detection']), str(trained['detection'])]
    with pytest.raises(UserError, match='^cannot write .*/shown/00.jpg: No space left on device$'):
        test([*model, '--work-dir', str(tmp_path / 'run'), '--show-dir', str(tmp_path / 'shown')])
    assert os.listdir(tmp_path / 'shown') == []


@pytest.mark.parametrize('option', ['--work-dir', '--show-dir', '--out'])
def test_unwritable_results(option, mistake, trained, tmp_path):
    (tmp_path / 'file').touch()
    message = mistake('gone.pth', option, str(tmp_path / 'file' / 'out.pkl'))
    assert message.endswith(f'{tmp_path}/file is a file, not a folder')


def test_label_maps_of_a_model_of_depths(tmp_path):
    with pytest.raises(UserError, match='--out writes label maps, but the model predicts none'):
        LabelImageHook(tmp_path).after_test_iter(None, 0, outputs=[SegDataSample()])


def test_predictions_on_several_datasets(test, configs, trained, tmp_path):
    """Their evaluator is no list of metrics, to which one could be added."""
    config = tmp_path / 'several.py'
    config.write_text(
        f"_base_ = '{configs['detection']}'\n"
        'datasets = [_base_.test_dataloader.dataset, _base_.test_dataloader.dataset]\n'
        "both = dict(_delete_=True, type='ConcatDataset', datasets=datasets)\n"
        'test_dataloader = dict(dataset=both)\n'
        'metrics = [_base_.test_evaluator, _base_.test_evaluator]\n'
        "test_evaluator = dict(_delete_=True, type='MultiDatasetsEvaluator', metrics=metrics,\n"
        "                      dataset_prefixes=['a', 'b'])\n"
    )
    out, work_dir = tmp_path / 'out.pkl', tmp_path / 'run'
    test([str(config), str(trained['detection']), '--work-dir', str(work_dir), '--out', str(out)])
    measured = metrics(work_dir)
    assert measured['a/coco/bbox_mAP'] == measured['b/coco/bbox_mAP']
    paths = [each['img_path'] for each in pickle.loads(out.read_bytes())]
    assert len(paths) == 2 * len(set(paths)) == 6


def test_drawing_what_a_tracker_finds():
    """mmdetection's own hook fails on the ground truth, also if none is loaded."""
    hooks = dict(visualization=dict(type='TrackVisualizationHook'))
    options = Namespace(show=False, show_dir='shown', wait_time=0)
    with pytest.raises(UserError, match='cannot draw what a tracker finds'):
        drawing_hook(Config(dict(default_hooks=hooks)), options)


@DATASETS.register_module()
class Pairs(BaseSegDataset):
    def load_data_list(self):
        entries = super().load_data_list()
        return [{**each, 'img_path': [each['img_path']] * 2} for each in entries]


@TRANSFORMS.register_module()
class LoadPair(LoadImageFromFile):
    def transform(self, results):
        loaded = [
            super(LoadPair, self).transform({'img_path': each}) for each in results['img_path']
        ]
        return {**loaded[0], **results, 'img': [each['img'] for each in loaded]}


@TRANSFORMS.register_module()
class TakeFirst:
    def __call__(self, results):
        return {**results, 'img': results['img'][0]}


def test_samples_of_several_images(test, configs, trained, tmp_path):
    """Models of changes, such as Open-CD's, compare two; results have the name of the first."""
    config = Config.fromfile(configs['segmentation'])
    dataset = config.test_dataloader.dataset
    dataset.type = 'Pairs'
    steps = [dict(type='LoadPair'), dict(type='TakeFirst')]
    dataset.pipeline = steps + dataset.pipeline[1:]
    config.dump(tmp_path / 'pairs.py')
    folders = [tmp_path / name for name in ('shown', 'out')]
    arguments = [f'--show-dir={folders[0]}', f'--out={folders[1]}', f'--work-dir={tmp_path}']
    test([str(tmp_path / 'pairs.py'), str(trained['segmentation']), *arguments])
    for folder in folders:
        assert sorted(os.listdir(folder)) == ['00.png', '01.png', '02.png']


@HOOKS.register_module()
class OwnDrawings(SegVisualizationHook):
    pass


@HOOKS.register_module()
class OwnFolder(SegVisualizationHook):
    def __init__(self, test_out_dir, **options):
        super().__init__(**options)


@pytest.mark.parametrize(('kind', 'takes_folder'), [('OwnDrawings', False), ('OwnFolder', True)])
def test_folder_for_a_custom_hook(kind, takes_folder, tmp_path):
    """Those after mmsegmentation's hook leave the folder to the visualizer."""
    config = Config(dict(default_scope='mmseg', default_hooks=dict(visualization=dict(type=kind))))
    options = Namespace(show=False, show_dir=str(tmp_path), wait_time=0)
    assert drawing_hook(config, options) is None
    given = config.default_hooks.visualization.get('test_out_dir')
    left = config.get('visualizer', {}).get('save_dir')
    assert (given, left)[:: 1 if takes_folder else -1] == (str(tmp_path), None)


def test_drawing_without_default_hooks():
    options = Namespace(show=False, show_dir='shown', wait_time=0)
    assert isinstance(drawing_hook(Config(dict(default_hooks=None)), options), DrawingHook)


@pytest.mark.parametrize('option', ['--show-dir', '--out'])
@pytest.mark.parametrize('key', ['img_path', 'seg_map_path'])
def test_data_are_not_overwritten(test, configs, trained, tmp_path, option, key):
    dataset = Config.fromfile(configs['segmentation']).test_dataloader.dataset
    root = tmp_path / 'data'
    shutil.copytree(dataset.data_root, root)
    folder = root / dataset.data_prefix[key]
    before = {path: path.read_bytes() for path in folder.iterdir()}
    arguments = [str(configs['segmentation']), str(trained['segmentation']), option, str(folder)]
    options = [f'test_dataloader.dataset.data_root={root}']
    with pytest.raises(UserError, match=f'^the result {folder} would overwrite an input'):
        test([*arguments, '--work-dir', str(tmp_path / 'run'), '--cfg-options', *options])
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_the_checkpoint_is_not_overwritten(mistake, trained, tmp_path):
    checkpoint = tmp_path / 'model.pkl'
    shutil.copy(trained['detection'], checkpoint)
    assert 'would overwrite an input' in mistake(str(checkpoint), '--out', str(checkpoint))


def test_output_that_is_a_folder(mistake, tmp_path):
    (tmp_path / 'out.pkl').mkdir()
    assert mistake('gone.pth', '--out', str(tmp_path / 'out.pkl')).endswith('out.pkl is a folder')


@pytest.mark.parametrize('arguments', [[], ['--out', 'out.pkl'], ['--tta']], ids=str)
def test_config_without_test_data(arguments, mistake, trained):
    nothing = ['test_dataloader=None', 'test_cfg=None', 'test_evaluator=None']
    message = mistake(trained['detection'], *arguments, '--cfg-options', *nothing)
    assert 'has no test_dataloader' in message


def test_tta_without_a_pipeline(mistake, trained):
    message = mistake(trained['detection'], '--tta', '--cfg-options', 'tta_model=None')
    assert '--tta needs tta_model and tta_pipeline' in message


def test_opacity(test, configs, trained, small_data, tmp_path):
    """The opacity applies to --show-dir, where ground truth and prediction are side by side."""
    drawn = {}
    for opacity in ('0', '1'):
        forget_visualizers()
        shown = tmp_path / opacity
        arguments = [str(configs['segmentation']), str(trained['segmentation'])]
        options = ['--show-dir', str(shown), '--opacity', opacity]
        test([*arguments, *options, '--work-dir', str(tmp_path / 'work_dir')])
        (path,) = shown.rglob('*00*.png')
        drawn[opacity] = cv2.imread(str(path))[:, :128].astype(int)
    image = cv2.imread(str(small_data / 'images' / 'validation' / '00.jpg'))
    assert np.percentile(abs(drawn['0'] - image), 75) == 0  # names are always drawn
    # The box is red and the disc blue, whatever the image shows there.
    for color in ([0, 0, 255], [255, 0, 0]):
        assert (drawn['1'] == color).all(axis=2).sum() > 500


def test_opacity_out_of_range(mistake, trained):
    message = mistake(trained['detection'], '--opacity', '1.5')
    assert message == '--opacity must be from 0 to 1, got 1.5'
