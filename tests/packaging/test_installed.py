"""Tests the installed wheel with OpenMMLab's own commands in a user's project."""

import json
import re
from pathlib import Path

import cv2

from tests.loading import name_for_mim

INFER = """
from {module} import {inferencer}
inferencer = {inferencer}('{config}', weights='{checkpoint}', device='cpu')
inferencer('data/images/0.png', out_dir='{out_dir}', {options})
"""


def test_environment_has_the_wheel_and_not_the_checkout(run, installed_python, user_project):
    report = 'import sys; print("torch" in sys.modules); import nat_mm; print(nat_mm.__file__)'
    started_with_torch, path = run([installed_python, '-c', report], cwd=user_project).split()
    assert started_with_torch == 'False'  # the start-up file costs other programs nothing
    assert Path(path).is_relative_to(installed_python.parents[1])


def test_detector_trains_tests_and_infers(run, warm_python, user_project):
    mim, mmdet = [warm_python, '-m', 'mim'], name_for_mim('mmdet')
    # mmdet's own commands do not know nat_mm until they read the config.
    log = run([*mim, 'train', mmdet, 'detector.py', '--work-dir', 'det'], cwd=user_project)
    assert len(re.findall(r'Epoch\(train\)', log)) == 2
    log = run(
        [*mim, 'test', mmdet, 'detector.py', '--checkpoint', 'det/epoch_1.pth'],
        cwd=user_project,
    )
    assert 'coco/segm_mAP' in log
    infer = INFER.format(
        module='mmdet.apis',
        inferencer='DetInferencer',
        config='detector.py',
        checkpoint='det/epoch_1.pth',
        out_dir='det/out',
        options='no_save_pred=False',
    )
    run([warm_python, '-c', infer], cwd=user_project)
    prediction = json.loads((user_project / 'det/out/preds/0.json').read_text())
    assert len(prediction['bboxes']) == len(prediction['masks']) > 0


def test_segmentor_trains_tests_and_infers(run, warm_python, user_project):
    mim = [warm_python, '-m', 'mim']
    # These are our commands, which `mim` finds in nat_mm/.mim/tools.
    log = run([*mim, 'train', 'nat_mm', 'segmentor.py', '--work-dir', 'seg'], cwd=user_project)
    assert len(re.findall(r'Iter\(train\)', log)) == 2
    log = run(
        [*mim, 'test', 'nat_mm', 'segmentor.py', '--checkpoint', 'seg/iter_2.pth'],
        cwd=user_project,
    )
    assert 'mIoU' in log
    infer = INFER.format(
        module='mmseg.apis',
        inferencer='MMSegInferencer',
        config='segmentor.py',
        checkpoint='seg/iter_2.pth',
        out_dir='seg/out',
        options="img_out_dir='vis', pred_out_dir='pred'",
    )
    run([warm_python, '-c', infer], cwd=user_project)
    classes = cv2.imread(str(next((user_project / 'seg/out/pred').iterdir())), cv2.IMREAD_UNCHANGED)
    assert classes.shape == (96, 128)
