"""Tests the model zoo of the installed wheel as ``mim`` and mmengine see it."""

import json

NAME = 'mask_rcnn_dinat_mini_3x_coco'
WEIGHTS = 'https://shi-labs.com/projects/dinat/checkpoints/coco/maskrcnn_dinat_mini.pth'


def test_mim_search(run, warm_python, tmp_path):
    options = ['--model', 'dinat', '--condition', 'box_ap>53', '--json', 'found.json']
    run([warm_python, '-m', 'mim', 'search', 'nat_mm', *options], cwd=tmp_path)
    assert json.loads((tmp_path / 'found.json').read_text())['coco/box_ap'] == {
        'cascade_mask_rcnn_dinat_base_3x_coco': 53.4,
        'cascade_mask_rcnn_dinat_large_3x_coco': 55.3,
    }


def test_mim_download(run, warm_python, tmp_path):
    # mim does not download files that exist.
    (tmp_path / 'maskrcnn_dinat_mini.pth').touch()
    options = ['--config', NAME, '--dest', tmp_path]
    log = run([warm_python, '-m', 'mim', 'download', 'nat_mm', *options], cwd=tmp_path)
    assert f'Successfully dumped {NAME}.py' in log
    assert "type='DiNAT'" in (tmp_path / f'{NAME}.py').read_text()


def test_mmengine_knows_the_weights_of_a_config(run, warm_python, tmp_path):
    report = (
        'from mmengine.hub import get_config; '
        f'print(get_config("nat_mm::detection/dinat/{NAME}.py", pretrained=True).model_path)'
    )
    assert run([warm_python, '-c', report], cwd=tmp_path).splitlines()[-1] == WEIGHTS


def test_mmpretrain_knows_the_classifiers(run, warm_python, tmp_path):
    report = (
        'import nat_mm; from mmpretrain.apis.model import ModelHub; '
        'print(ModelHub.get("dinat_mini_in1k_224").config.model.backbone.type)'
    )
    assert run([warm_python, '-c', report], cwd=tmp_path).splitlines()[-1] == 'DiNAT'
