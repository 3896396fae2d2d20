"""Tests tools/get_flops.py: published figures, other counters, both outputs, and refusals."""

import io
import json
from contextlib import redirect_stdout

import pytest
import torch
from mmcv.transforms import Resize
from mmengine.analysis import ActivationAnalyzer, FlopAnalyzer, get_model_complexity_info
from mmengine.registry import MODELS
from torch import nn
from torch.utils._pytree import tree_leaves

from nat_mm.analysis.flops import ModelCosts, count_costs
from nat_mm.analysis.flops_report import FlopsReport
from nat_mm.analysis.workloads import Workload, find_workload
from nat_mm.backbones import NAT
from nat_mm.commands.running import run_command
from nat_mm.config.reading import load_config
from nat_mm.errors import UserError
from tests.loading import load_command
from tests.model_zoo import ROOT, image_size, read_model_zoo
from tests.ops.kernel import CPU

MODEL_ZOO = read_model_zoo()
TOOL = load_command('get_flops')

# The smallest model of each family and method.
EXPERIMENTS = [
    'mask_rcnn_nat_mini_3x_coco',
    'cascade_mask_rcnn_nat_mini_3x_coco',
    'upernet_nat_mini_512x512_160k_ade20k',
    'mask_rcnn_dinat_mini_3x_coco',
    'cascade_mask_rcnn_dinat_mini_3x_coco',
    'upernet_dinat_mini_512x512_160k_ade20k',
    'mask_rcnn_dinat_s_tiny_3x_coco',
    'cascade_mask_rcnn_dinat_s_tiny_3x_coco',
    'upernet_dinat_s_tiny_512x512_160k_ade20k',
]

# Published by others for images of the same sizes: parameters (M), multiply-adds (G).
OTHERS = {
    'mmdet::swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py': (48, 267),
    'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py': (38, 239),
}


def report(config, *arguments):
    """Returns what the command prints as JSON."""
    with redirect_stdout(io.StringIO()) as printed:
        TOOL.main([str(config), '--json', *arguments])
    return json.loads(printed.getvalue())


@pytest.fixture(scope='module')
def detector(configs):
    return report(configs['detection'], '--shape', '64', '96')


@pytest.fixture(scope='module')
def segmentor(configs):
    return report(configs['segmentation'], '--shape', '64', '96')


@pytest.fixture
def mistake(capsys):
    """Runs the command, which must fail, and returns its one line on stderr."""

    def run(*arguments):
        with pytest.raises(SystemExit) as exit_info:
            run_command(lambda: TOOL.main([str(argument) for argument in arguments]))
        printed = capsys.readouterr()
        assert (exit_info.value.code, printed.out) == (2, '')
        (line,) = printed.err.splitlines()
        return line

    return run


@pytest.fixture
def write_config(tmp_path):
    """Writes a config file and returns its path."""

    def write(text):
        path = tmp_path / 'config.py'
        path.write_text(text)
        return path

    return write


def build(config):
    """Builds a model and its workload."""
    config = load_config(str(config))
    model = MODELS.build(config.model).eval()
    return model, find_workload(model, config)


@pytest.mark.parametrize('name', EXPERIMENTS)
def test_published_figures(name):
    entry = MODEL_ZOO[name]
    printed = report(ROOT / entry['Config'])
    assert tuple(printed['shape']) == image_size(entry)
    assert round(printed['parameters'], -6) == entry['Metadata']['Parameters']
    published = entry['Metadata']['FLOPs']
    assert printed['multiply_adds'] == pytest.approx(published, rel=0.01)
    # The published figures are rounded; the same conventions give them exactly.
    assert round(printed['multiply_adds'], -9) == published


@pytest.mark.parametrize(('name', 'published'), OTHERS.items(), ids=['swin', 'retinanet'])
def test_published_figures_of_others(write_config, name, published):
    printed = report(write_config(f'_base_ = {name!r}'))
    parameters, gigas = published
    assert round(printed['parameters'] / 1e6) == parameters
    assert printed['multiply_adds'] / 1e9 == pytest.approx(gigas, rel=0.002)
    assert printed['neighborhood_attention_multiply_adds'] == 0


class AsModule(nn.Module):
    """A workload as a traceable module."""

    def __init__(self, model: nn.Module, workload: Workload) -> None:
        super().__init__()
        self.model = model
        self.run = workload.run

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        return [leaf for leaf in tree_leaves(self.run(self.model, image)) if torch.is_tensor(leaf)]


@pytest.mark.parametrize('task', ['detection', 'segmentation'])
def test_agrees_with_mmengine(configs, task):
    shape = (64, 96)
    model, workload = build(configs[task])
    costs = count_costs(model, shape, workload.run)
    analyzer = FlopAnalyzer(AsModule(model, workload), (torch.zeros(1, 3, *shape),))
    analyzer.unsupported_ops_warnings(False)
    # mmengine also counts averaging over a whole map and nearest-neighbor interpolation.
    assert costs.multiply_adds[''] == pytest.approx(analyzer.total(), rel=1e-3)
    assert costs.multiply_adds[''] <= analyzer.total()
    assert analyzer.by_operator()['na2d_portable'] == costs.neighborhood_attention


@pytest.mark.parametrize('backend', [CPU, 'portable'])
def test_complexity_of_a_backbone_in_mmengine(backend):
    sizes = dict(embed_dim=16, depths=(1, 2, 1, 1), num_heads=(1, 2, 4, 8), kernel_size=3)
    model = NAT(arch=None, **sizes, attention_backend=backend).eval()
    info = get_model_complexity_info(model, (3, 64, 96), show_table=False, show_arch=False)
    costs = count_costs(model, (64, 96), lambda model, image: model(image))
    assert info['flops'] == costs.multiply_adds['']
    assert info['params'] == costs.parameters['']
    for counter in (FlopAnalyzer, ActivationAnalyzer):
        analyzer = counter(model, (torch.zeros(1, 3, 64, 96),)).unsupported_ops_warnings(False)
        assert analyzer.total() > 0
        assert not any('nat_mm' in name for name in analyzer.unsupported_ops())


def test_costs_of_images_with_four_channels(configs):
    sizes = dict(embed_dim=16, depths=(1, 1), num_heads=(1, 2), kernel_size=3)
    three, four = (
        count_costs(
            NAT(**sizes, in_channels=channels, out_indices=(1,)),
            (64, 96),
            lambda model, image: model(image),
        )
        for channels in (3, 4)
    )
    # The first convolution, 3 x 3 with stride 2, has half of the embedding's channels.
    assert four.parameters[''] - three.parameters[''] == 9 * 8
    assert four.multiply_adds[''] - three.multiply_adds[''] == 9 * 8 * 32 * 48
    options = ['model.backbone.in_channels=4', 'model.data_preprocessor=None']
    printed = report(configs['segmentation'], '--shape', '64', '96', '--cfg-options', *options)
    assert printed['multiply_adds'] > 0


def test_values_change_nothing(configs):
    model, workload = build(configs['segmentation'])
    counted = count_costs(model, (64, 96), workload.run)
    assert count_costs(model, (64, 96), workload.run, compute=True) == counted


def test_neighborhood_attention_by_its_formula(segmentor):
    # Tokens times channels of each stage. The last map, 2 x 3, is padded to the kernel's 3 x 3.
    queries = 16 * 24 * 32 + 8 * 12 * 64 + 4 * 6 * 128 + 3 * 3 * 256
    assert segmentor['neighborhood_attention_multiply_adds'] == 2 * 3 * 3 * queries


@pytest.mark.parametrize('backend', ['reference', 'natten'])
def test_backend_changes_nothing(configs, segmentor, backend):
    override = f'model.backbone.attention_backend={backend}'
    found = report(configs['segmentation'], '--shape', '64', '96', '--cfg-options', override)
    assert found == segmentor


def test_modules_add_up(detector):
    for key in ('parameters', 'multiply_adds'):
        counts = {name: counted[key] for name, counted in detector['modules'].items()}
        # A level's downsampler is called by the backbone, and a layer's norm by its attention.
        for parent in ('backbone', 'backbone.levels', 'backbone.levels.0', 'rpn_head', 'roi_head'):
            children = [
                count for name, count in counts.items() if name.rpartition('.')[0] == parent
            ]
            assert counts[parent] == sum(children) > 0


def test_regions(detector):
    box, mask = (detector['modules'][f'roi_head.{head}_head'] for head in ('bbox', 'mask'))
    # two linear layers, the classes including background, and the boxes of both classes
    assert box['multiply_adds'] == 1000 * (32 * 7 * 7 * 64 + 64 * 64 + 64 * 3 + 64 * 8)
    # a convolution on 14 x 14, one that doubles the size, and the masks of both classes
    assert mask['multiply_adds'] == 100 * (
        14 * 14 * 32 * 32 * 9 + 14 * 14 * 32 * 32 * 4 + 28 * 28 * 32 * 2
    )


def test_auxiliary_head_has_parameters_and_computes_nothing(segmentor):
    auxiliary = segmentor['modules']['auxiliary_head']
    assert auxiliary['parameters'] > 0
    assert auxiliary['multiply_adds'] == 0


def test_shape(configs, detector):
    large = report(configs['detection'], '--shape', '128', '192')
    assert (detector['shape'], large['shape']) == ([64, 96], [128, 192])
    assert detector['parameters'] == large['parameters']
    small, large = (each['modules']['backbone.patch_embed'] for each in (detector, large))
    assert large['multiply_adds'] == 4 * small['multiply_adds']


def test_shape_of_the_test_pipeline(configs):
    _, workload = build(configs['segmentation'])
    name = 'dinat/upernet_dinat_large_640x640_160k_ade20k.py'
    config = load_config(str(ROOT / 'configs/segmentation' / name))
    assert workload.find_shape(config) == (640, 2560)
    (resize,) = [each for each in config.test_pipeline if each.type == 'Resize']
    resize.type = Resize
    config.test_dataloader.dataset.pipeline = [resize]
    assert workload.find_shape(config) == (640, 2560)


def test_table(configs, capsys):
    TOOL.main([str(configs['segmentation']), '--shape', '64', '96', '--depth', '1'])
    table = capsys.readouterr().out
    for text in ('EncoderDecoder', 'backbone', 'decode_head', '100.0%', '64 x 96'):
        assert text in table
    assert 'fpn_bottleneck' not in table


def test_rows_of_the_table(capsys):
    costs = ModelCosts(
        parameters={'': 3_000_000, 'neck': 0, 'body': 3_000_000, 'body.layer': 2_000_000},
        multiply_adds={'': 8 * 10**9, 'neck': 0, 'body': 6 * 10**9, 'body.layer': 4 * 10**9},
        neighborhood_attention=0,
    )
    report = FlopsReport(config='c.py', model='M', shape=(2, 3), convention='', costs=costs)
    report.print_table(depth=2)
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if '%' in line]
    assert rows == [
        ['M', '3.00', 'M', '8.00', 'G', '100.0%'],
        ['body', '3.00', 'M', '6.00', 'G', '75.0%'],
        ['layer', '2.00', 'M', '4.00', 'G', '50.0%'],
        ['outside', 'of', 'these', '0.00', 'M', '2.00', 'G', '25.0%'],
    ]


def test_model_whose_work_depends_on_values_is_computed(capsys):
    def run(model, image):
        for _ in range(int(image.sum()) + 2):
            model(image)

    workload = Workload(run, lambda config: None, '')
    model = nn.Conv2d(3, 4, 1)
    costs = TOOL.count(model, workload, (5, 6), build_with_values=lambda: model, source='config.py')
    assert costs.multiply_adds[''] == 2 * 3 * 4 * 5 * 6
    assert 'computing' in capsys.readouterr().err


def test_missing_config(mistake):
    assert 'config not found: nowhere.py' in mistake('nowhere.py')


@pytest.mark.parametrize('shape', [('0', '96'), ('64', '-1')], ids='x'.join)
def test_shape_without_pixels(mistake, configs, shape):
    assert f'got {shape[0]} {shape[1]}' in mistake(configs['detection'], '--shape', *shape)


@pytest.mark.parametrize('shape', [('64',), ('64', 'wide')], ids='x'.join)
def test_shape_that_is_no_pair_of_numbers(configs, capsys, shape):
    with pytest.raises(SystemExit) as exit_info:
        TOOL.main([str(configs['detection']), '--shape', *shape])
    assert exit_info.value.code == 2
    assert '--shape' in capsys.readouterr().err.splitlines()[-1]


def test_shape_too_small_for_the_model(mistake, configs):
    line = mistake(configs['detection'], '--shape', '8', '9')
    assert '8 x 9' in line


@pytest.mark.parametrize(
    ('task', 'expected'),
    [
        ('detection', 'model.neck.in_channels is [32, 64, 128, 256], but model.backbone gives 2'),
        ('segmentation', 'model.decode_head.in_index is [0, 1, 2, 3], but model.backbone gives 2'),
    ],
)
def test_parts_that_do_not_fit(task, expected, mistake, configs):
    override = 'model.backbone.out_indices=(0,1)'
    line = mistake(configs[task], '--shape', '64', '96', '--cfg-options', override)
    assert line.startswith(f'error: {configs[task]}: {expected} feature maps of [32, 64] channels')


def test_error_without_text():
    def run(model, image):
        raise AssertionError

    workload = Workload(run, lambda config: None, '')
    model = nn.Identity()
    with pytest.raises(UserError, match='of 5 x 6: AssertionError: raise AssertionError'):
        TOOL.count(model, workload, (5, 6), build_with_values=lambda: model, source='config.py')


def test_depth_of_nothing(mistake, configs):
    assert '--depth must be at least 1, got 0' in mistake(configs['detection'], '--depth', '0')


def test_model_that_is_no_detector(mistake, write_config):
    path = write_config(
        "default_scope = 'mmdet'\n"
        "model = dict(type='FPN', in_channels=[8, 8], out_channels=8, num_outs=2)"
    )
    assert 'must be a BaseDetector of mmdet, got FPN' in mistake(path)


def test_config_without_model(mistake, write_config):
    assert 'has no model' in mistake(write_config("default_scope = 'mmseg'"))


def test_test_pipeline_without_image_size(mistake, configs):
    assert '--shape H W' in mistake(configs['segmentation'])


def test_wrong_override(mistake, configs):
    line = mistake(configs['detection'], '--cfg-options', 'model.backbone.arch=huge')
    assert 'huge' in line
