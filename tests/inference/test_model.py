"""Tests `nat_mm.load_model`, the inputs it takes, and what its results contain."""

import json
from pathlib import Path

import cv2
import mmcv
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.hub import get_model
from mmengine.registry import MODELS, DefaultScope
from mmseg.models import EncoderDecoder
from pycocotools import mask as coco_mask

import nat_mm
from nat_mm.checkpoints.published import read_model_zoo
from nat_mm.config import zoo
from nat_mm.config.reading import load_config
from nat_mm.data.shape_trace import build_without_memory
from nat_mm.errors import UserError
from nat_mm.inference.inputs import Frame
from nat_mm.inference.model import Model, _reduces_zero_label
from nat_mm.inference.model_settings import low_scores_kept
from nat_mm.inference.palettes import make_palette
from nat_mm.inference.result_files import write_labels
from tests.loading import load_command
from tests.model_zoo import ROOT

CONFIGS = Path(nat_mm.__file__).parent / '.mim' / 'configs'


@pytest.fixture(scope='module')
def folder(tmp_path_factory) -> Path:
    """Two images of different shapes."""
    folder = tmp_path_factory.mktemp('front_door')
    generator = np.random.default_rng(0)
    for name, shape in {'a.png': (60, 84, 3), 'b.png': (72, 64, 3)}.items():
        cv2.imwrite(str(folder / name), generator.integers(0, 256, shape, dtype=np.uint8))
    return folder


def load(name: str) -> Model:
    torch.manual_seed(0)
    if name == 'classification':
        pytest.importorskip('mmpretrain')
        return nat_mm.load_model(ROOT / 'tests/small_classifier.py', 'none', device='cpu')
    config = {'detection': 'mask_rcnn_nat_demo', 'segmentation': 'upernet_nat_demo'}[name]
    return nat_mm.load_model(CONFIGS / f'demo/{config}.py', 'none', device='cpu')


@pytest.fixture(scope='module')
def models() -> dict[str, Model]:
    return {name: load(name) for name in ('detection', 'segmentation')}


def test_detection(models, folder, tmp_path):
    model = models['detection']
    result = model.predict(folder / 'a.png', score_threshold=0)
    count = len(result.scores)
    assert count > 3
    assert result.boxes.shape == (count, 4)
    assert result.masks.shape == (count, 60, 84)
    assert result.masks.dtype == bool
    assert result.class_names == [model.classes[label] for label in result.labels]
    threshold = float(np.median(result.scores))
    above = model.predict(folder / 'a.png', score_threshold=threshold)
    np.testing.assert_array_equal(above.scores, result.scores[result.scores >= threshold])

    entry = result.to_coco(image_id=7)[0]
    x1, y1, x2, y2 = result.boxes[0]
    assert entry['image_id'] == 7
    assert entry['category_id'] == result.labels[0] + 1
    np.testing.assert_allclose(entry['bbox'], [x1, y1, x2 - x1, y2 - y1], rtol=1e-6)
    np.testing.assert_array_equal(coco_mask.decode(entry['segmentation']), result.masks[0])

    drawing = result.draw()
    assert drawing.shape == (60, 84, 3)
    assert drawing.dtype == np.uint8
    result.save(tmp_path / 'new' / 'out.png')
    np.testing.assert_array_equal(mmcv.imread(tmp_path / 'new' / 'out.png'), drawing[..., ::-1])


def test_segmentation(models, folder):
    model = models['segmentation']
    result = model.predict(str(folder / 'b.png'))
    assert result.label_map.shape == (72, 64)
    assert result.label_map.max() < len(model.classes)
    sizes = {name: (result.label_map == model.classes.index(name)).sum() for name in model.classes}
    assert result.class_names == sorted(filter(sizes.get, sizes), key=sizes.get, reverse=True)
    total = np.zeros((72, 64), int)
    for entry in result.to_coco():
        total += coco_mask.decode(entry['segmentation']) * entry['category_id']
    np.testing.assert_array_equal(total - 1, result.label_map)


def test_classification(folder):
    model = load('classification')
    result = model.predict(folder / 'a.png')
    assert len(result.scores) == len(model.classes) == 1000
    assert np.all(np.diff(result.scores) <= 0)
    assert result.scores.sum() == pytest.approx(1, abs=1e-5)
    assert result.class_names[0] == model.classes[result.labels[0]]
    assert result.draw().shape == (60, 84, 3)


@pytest.mark.parametrize('task', ['detection', 'segmentation'])
def test_same_result_from_file_array_list_and_folder(models, folder, task):
    model = models[task]
    paths = [folder / 'a.png', folder / 'b.png']
    one = model.predict(paths[0], score_threshold=0)
    from_array = model.predict(cv2.imread(str(paths[0])), score_threshold=0)
    from_list = model.predict(paths, score_threshold=0, batch_size=2)
    from_folder = model.predict(folder, score_threshold=0)
    assert [len(from_list), len(from_folder)] == [2, 2]
    for other in (from_array, from_list[0], from_folder[0]):
        described = {**other.describe(), 'image': 'a.png'}
        assert json.dumps(described) == json.dumps(one.describe())
    assert from_folder[1].image.shape == (72, 64, 3)


@pytest.mark.parametrize(
    ('inputs', 'options', 'error', 'message'),
    [
        ('gone.png', {}, UserError, 'input not found: gone.png'),
        (np.zeros((8, 8), np.uint8), {}, TypeError, r'\[height, width, 3\] of uint8, got \[8, 8\]'),
        (np.zeros((8, 8, 3)), {}, TypeError, 'got .* of float64'),
        (np.zeros((0, 8, 3), np.uint8), {}, UserError, r'predicted: its shape \[0, 8, 3\] is not'),
        ([3], {}, TypeError, 'must be a path or an array, got 3'),
        (None, {}, TypeError, 'must be a path or an array, got None'),
        (b'a.png', {}, TypeError, 'must be a path or an array, got a bytes'),
        (torch.zeros(3, 8, 8), {}, TypeError, r'array, got a Tensor of shape \[3, 8, 8\]'),
        ('', {}, UserError, "an input is '', not a path"),
        ([], {'score_threshold': 2}, UserError, 'score_threshold must be from 0 to 1, got 2'),
        ([], {'batch_size': 0}, UserError, 'batch_size must be at least 1, got 0'),
        ([], {'tiling': 64}, TypeError, 'tiling must be a Tiling, got 64'),
    ],
    ids=['missing', 'gray', 'float', 'no pixels', 'number', 'none', 'bytes', 'tensor', 'empty']
    + ['threshold', 'batch size', 'tiling'],
)
def test_wrong_input(models, inputs, options, error, message):
    with pytest.raises(error, match=message):
        models['segmentation'].predict(inputs, **options)


def test_concatenated_test_data(folder):
    """Classes and pipeline are those of the first dataset."""
    config = Config.fromfile(CONFIGS / 'demo/mask_rcnn_nat_demo.py')
    dataset = config.test_dataloader.dataset
    config.test_dataloader.dataset = dict(type='ConcatDataset', datasets=[dataset, dataset])
    model = nat_mm.load_model(config, 'none', device='cpu')
    assert model.classes == list(dataset.metainfo.classes)
    assert model.predict(folder / 'a.png').boxes.shape[1] == 4


def test_model_of_given_proposals(folder):
    config = Config.fromfile(CONFIGS / 'demo/mask_rcnn_nat_demo.py')
    config.test_dataloader.dataset.pipeline.insert(1, dict(type='LoadProposals'))
    model = nat_mm.load_model(config, 'none', device='cpu')
    with pytest.raises(UserError, match='takes proposals from a file of its dataset, so that only'):
        model.predict(folder / 'a.png')


@MODELS.register_module()
class FrozenSegmentor(EncoderDecoder):
    def train(self, mode=True):  # like Rein's, returns nothing
        super().train(mode)
        self.backbone.eval()


def test_model_whose_train_returns_nothing(folder):
    config = load('segmentation').config.copy()
    config.merge_from_dict({'model.type': 'FrozenSegmentor'})
    model = nat_mm.load_model(config, 'none', device='cpu')
    assert not model.module.training
    assert model.predict(folder / 'a.png').label_map.shape == (60, 84)
    assert build_without_memory(config).training


def test_several_tasks(folder):
    model = load('classification')
    head = dict(type='LinearClsHead', num_classes=2, in_channels=256)
    heads = dict(type='MultiTaskHead', task_heads=dict(color=head, shape=head))
    packing = dict(type='PackMultiTaskInputs', multi_task_fields=())
    model.config.test_dataloader.dataset.pipeline[-1] = packing
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model.module.head = MODELS.build(heads)
    with pytest.raises(UserError, match='ImageClassifier predicts no pred_score, so that only nat'):
        model.predict(folder / 'a.png')


def test_retriever(folder):
    model = load('classification')
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        encoder = model.config.model.backbone
        retriever = dict(type='ImageToImageRetriever', image_encoder=encoder)
        model.module = MODELS.build({**retriever, 'prototype': torch.zeros(2, 64)})
    with pytest.raises(UserError, match='ImageToImageRetriever looks for similar images, so that'):
        model.predict(folder / 'a.png')


def test_overrides_leave_the_given_config_alone():
    config = Config.fromfile(CONFIGS / 'demo/mask_rcnn_nat_demo.py')
    overrides = {'model.backbone.drop_path_rate': 0.05}
    model = nat_mm.load_model(config, 'none', device='cpu', overrides=overrides)
    assert model.config.model.backbone.drop_path_rate == 0.05
    assert config.model.backbone.get('drop_path_rate', 0.0) != 0.05


def test_overrides_that_do_not_fit():
    config = Config.fromfile(CONFIGS / 'demo/mask_rcnn_nat_demo.py')
    for source in (config, CONFIGS / 'demo/mask_rcnn_nat_demo.py'):
        with pytest.raises(UserError, match='overrides .* do not fit .*mask_rcnn_nat_demo.py'):
            nat_mm.load_model(source, 'none', overrides={'model.backbone.depths.0.x': 1})


def test_wrong_config():
    with pytest.raises(TypeError, match='must be a path, a name or a Config, got None'):
        nat_mm.load_model(None, 'none')


@pytest.mark.parametrize('name', ['out', 'out.pdf', '.'])
def test_drawings_are_images(models, folder, tmp_path, name):
    result = models['segmentation'].predict(folder / 'a.png')
    with pytest.raises(ValueError, match="is no suffix of an image file, such as '.jpg'"):
        result.save(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_classes_of_a_text_file(tmp_path):
    names = tmp_path / 'names.txt'
    names.write_text('a\nb\nc\nd\ne\nf\ng\n')
    options = {'test_dataloader.dataset.metainfo': {'classes': str(names)}}
    config = CONFIGS / 'demo/upernet_nat_demo.py'
    assert nat_mm.load_model(config, 'none', overrides=options).classes == [*'abcdefg']
    names.unlink()
    with pytest.raises(UserError, match=rf"text file with one per line, got '{names}'"):
        nat_mm.load_model(config, 'none', overrides=options)


@pytest.mark.parametrize(
    ('kind', 'classes', 'color'),
    [
        ('CityscapesDataset', ['road', 'sidewalk'], (128, 64, 128)),
        ('REFUGEDataset', ['0', '1'], make_palette(7)[0]),  # it has 2 classes, the model 7
    ],
)
def test_classes_of_the_type_of_a_dataset(kind, classes, color):
    config = Config.fromfile(CONFIGS / 'demo/upernet_nat_demo.py')
    config.test_dataloader.dataset.type = kind
    del config.test_dataloader.dataset['metainfo']
    model = nat_mm.load_model(config, 'none', device='cpu')
    assert model.classes[:2] == classes
    assert model.palette[0] == color


def test_classes_of_a_semantic_branch_do_not_count():
    model = nat_mm.load_model('mmdet::htc/htc_r50_fpn_1x_coco.py', 'none', device='cpu')
    assert len(model.classes) == 80


def test_scores_below_the_threshold_of_the_config(models, folder, monkeypatch):
    """Detections below it are returned only if asked for."""
    model = models['detection']
    own = model.module.roi_head.test_cfg
    monkeypatch.setitem(own, 'score_thr', 0.4)
    counts = [len(model.predict(folder / 'a.png', score_threshold=0.4).scores)]
    counts.append(len(model.predict(folder / 'a.png', score_threshold=0).scores))
    assert counts[0] < counts[1] <= own.max_per_img
    assert own.score_thr == 0.4


def test_thresholds_of_a_detector_without_regions():
    head = torch.nn.Module()
    head.test_cfg = {'score_thr': 0.3, 'nested': {'score_thr': 0.001}, 'max_per_img': 7}
    with low_scores_kept(torch.nn.Sequential(head), 0.1):
        assert head.test_cfg == {'score_thr': 0.1, 'nested': {'score_thr': 0.001}, 'max_per_img': 7}
    assert head.test_cfg['score_thr'] == 0.3


@pytest.mark.parametrize(
    ('dataset', 'first'),
    [
        (dict(type='ADE20KDataset'), 1),
        (dict(type='ADE20KDataset', reduce_zero_label=False), 0),
        (dict(type='CityscapesDataset'), 0),
        (dict(type='RepeatDataset', times=2, dataset=dict(type='ADE20KDataset')), 1),
        (dict(type='no such dataset', reduce_zero_label=True), 1),
    ],
    ids=['ADE20K', 'ADE20K with zero', 'Cityscapes', 'wrapped', 'unknown'],
)
def test_label_images_are_numbered_as_the_ground_truth(dataset, first):
    config = Config(dict(default_scope='mmseg', test_dataloader=dict(dataset=dataset)))
    assert _reduces_zero_label(config) == bool(first)


@pytest.mark.parametrize(
    ('count', 'first', 'dtype'), [(256, 0, np.uint8), (256, 1, np.uint16), (2, 1, np.uint8)]
)
def test_label_image(count, first, dtype, tmp_path):
    labels = np.array([[0, count - 1]])
    write_labels(tmp_path / 'a.png', labels, classes=count, first=first)
    written = cv2.imread(str(tmp_path / 'a.png'), cv2.IMREAD_UNCHANGED)
    assert written.dtype == dtype
    np.testing.assert_array_equal(written, labels + first)


def test_image_in_memory_is_loaded_as_the_config_asks_for():
    pipeline = [dict(type='LoadImageFromFile', color_type='grayscale', to_float32=True)]
    dataset = dict(dataset=dict(type='BaseSegDataset', pipeline=pipeline))
    model = Model(
        torch.nn.Module(), Config(dict(default_scope='mmcv', test_dataloader=dataset)), {}
    )
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    loaded = model.loaded(Frame(image, 'image', 'image'))['img']
    assert loaded.dtype == np.float32
    np.testing.assert_array_equal(loaded, cv2.cvtColor(image, cv2.COLOR_BGR2GRAY))


def test_folder_with_images_of_the_same_name(models, folder, tmp_path):
    """Only commands write files that are named like the images."""
    for name in ('a.png', 'a.bmp'):
        cv2.imwrite(str(tmp_path / name), cv2.imread(str(folder / 'a.png')))
    results = models['segmentation'].predict(tmp_path)
    assert [result.describe()['image'] for result in results] == ['a.bmp', 'a.png']


def test_image_that_the_pipeline_drops(models, folder, monkeypatch):
    monkeypatch.setattr(models['segmentation'], '_pipeline', lambda results: None)
    with pytest.raises(UserError, match='predicted: the test pipeline of the config leaves it out'):
        models['segmentation'].predict(folder / 'a.png')


def test_unreadable_image_is_named(models, tmp_path):
    (tmp_path / 'text.png').write_text('no image')
    with pytest.raises(UserError, match=r'1 of 1 inputs cannot be used: .*text\.png \('):
        models['segmentation'].predict(tmp_path)


def test_single_channel_that_tells_two_classes_apart():
    config = load_config(CONFIGS / 'demo/upernet_nat_demo.py')
    config.model.auxiliary_head = None
    config.model.decode_head.update(num_classes=1, out_channels=1, threshold=0.5)
    config.model.decode_head.loss_decode = dict(type='CrossEntropyLoss', use_sigmoid=True)
    metainfo = config.test_dataloader.dataset.metainfo
    metainfo.classes = ('other', 'street')
    model = nat_mm.load_model(config, 'none', device='cpu')
    assert set(model.predict(np.zeros((40, 56, 3), np.uint8)).class_names) <= set(metainfo.classes)
    metainfo.classes = ('street',)
    with pytest.raises(UserError, match="1 classes .'street'., but the model has 2"):
        nat_mm.load_model(config, 'none', device='cpu')


@pytest.mark.parametrize('suffix', ['', '.py'])
def test_names_of_installed_configs_may_have_points(suffix):
    path = zoo.find_config(f'mmdet::regnet/mask-rcnn_regnetx-3.2GF_fpn_1x_coco{suffix}')
    assert path.name == 'mask-rcnn_regnetx-3.2GF_fpn_1x_coco.py'


def test_every_name_of_the_model_zoo_is_a_config_with_weights():
    assert zoo.is_model('mask_rcnn_nat_tiny_3x_coco')
    for name in zoo.read_model_zoo():
        path = zoo.find_config(name)
        assert path.stem == name
        assert zoo.published_weights(path).startswith('https://')


@pytest.mark.parametrize(
    'source',
    [
        'mask_rcnn_nat_mini_3x_coco',
        'nat_mm::detection/nat/mask_rcnn_nat_mini_3x_coco.py',
        'nat_mm::detection/nat/mask_rcnn_nat_mini_3x_coco',
        CONFIGS / 'detection/nat/mask_rcnn_nat_mini_3x_coco.py',
    ],
    ids=['name', 'package', 'package without suffix', 'file'],
)
def test_published_weights_are_the_default(source, monkeypatch):
    asked = []

    def read(source):
        asked.append(source)
        raise UserError('not downloaded')

    monkeypatch.setattr('nat_mm.inference.load_model.read_for_model', read)
    with pytest.raises(ValueError, match='not downloaded'):
        nat_mm.load_model(source)
    assert asked == ['https://shi-labs.com/projects/nat/checkpoints/DET/nat_mini_maskrcnn.pth']


@pytest.mark.parametrize(
    ('source', 'message'),
    [
        ('mask_rcnn_nat_tini_3x_coco', 'the model zoo has mask_rcnn_nat_tiny_3x_coco'),
        ('nat_mm::nowhere.py', r'config not found: .*configs.nowhere\.py'),
        ('mmnothing::a.py', "package 'mmnothing' is not installed"),
        (CONFIGS / 'demo/upernet_nat_demo.py', "no weights were published for .* or 'none'"),
    ],
    ids=['misspelt', 'package', 'no package', 'unpublished'],
)
def test_wrong_source(source, message):
    with pytest.raises(UserError, match=message):
        nat_mm.load_model(source)


def test_commands_take_names(capsys):
    load_command('get_flops').main(['nat_mini_in1k_224', '--json'])
    assert json.loads(capsys.readouterr().out)['model'] == 'ImageClassifier'


def test_mmengine_hub_builds_from_the_same_names():
    for _ in range(2):  # the imported function stays the same
        with DefaultScope.overwrite_default_scope('mmengine'):
            model = get_model('nat_mm::demo/upernet_nat_demo.py')
        assert type(model).__name__ == 'EncoderDecoder'
        assert model.training


@pytest.mark.parametrize(
    ('name', 'package', 'inferencer'),
    [
        ('mask_rcnn_nat_mini_3x_coco', 'mmdet.apis', 'DetInferencer'),
        ('upernet_nat_mini_512x512_160k_ade20k', 'mmseg.apis', 'MMSegInferencer'),
    ],
)
def test_inferencers_know_the_names(name, package, inferencer, monkeypatch):
    module = pytest.importorskip(package)
    loaded = []

    def stop(self, config, weights, device):
        loaded.append((config, weights))
        raise InterruptedError

    kind = getattr(module, inferencer)
    monkeypatch.setattr(kind, '_init_model', stop)
    with pytest.raises(InterruptedError):
        kind(name, device='cpu')
    ((config, weights),) = loaded
    assert config.model.backbone.type == 'NAT'
    assert weights == zoo.published_weights(zoo.find_config(name))
    assert isinstance(config, Config)


def test_mmpretrain_knows_the_classifiers(monkeypatch):
    mmpretrain = pytest.importorskip('mmpretrain')
    classifiers = [name for name, each in read_model_zoo().items() if '/class' in each['Config']]
    assert set(classifiers) <= set(mmpretrain.list_models(task='Image Classification'))
    assert 'mask_rcnn_nat_mini_3x_coco' not in mmpretrain.list_models()
    loaded = []

    def load(model, weights, **options):
        loaded.append(weights)
        return {}

    monkeypatch.setattr('mmengine.runner.load_checkpoint', load)
    smaller = dict(arch=None, embed_dim=32, depths=(1,) * 4, num_heads=(1, 2, 4, 8))
    name = 'nat_mini_in1k_224'
    model = mmpretrain.get_model(name, True, backbone=smaller, head=dict(in_channels=256))
    assert type(model.backbone).__name__ == 'NAT'
    assert loaded == [zoo.published_weights(zoo.find_config(name))]
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        result = mmpretrain.inference_model(model, np.zeros((40, 56, 3), np.uint8))
    assert result['pred_class'] in mmpretrain.datasets.ImageNet.METAINFO['classes']


def test_model_that_a_user_registered_in_mmpretrain_stays(monkeypatch):
    model = pytest.importorskip('mmpretrain.apis.model')
    monkeypatch.setitem(model.ModelHub._models_dict, 'nat_mini_in1k_224', 'own')
    assert 'nat_tiny_in1k_224' in model.list_models('nat_')
    assert model.ModelHub._models_dict['nat_mini_in1k_224'] == 'own'
