"""Changes to what the pages show, so that executing all of it takes a minute, offline."""

SMALLER_DETECTOR = """
load_from = 'downloads/nat_mini_maskrcnn.pth'
model = dict(
    backbone=dict(
        arch=None, embed_dim=32, depths=(1, 1, 1, 1), num_heads=(1, 2, 4, 8), kernel_size=3,
        init_cfg=None),
    neck=dict(in_channels=[32, 64, 128, 256], out_channels=32),
    rpn_head=dict(in_channels=32, feat_channels=32),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=32),
        bbox_head=dict(in_channels=32, fc_out_channels=64),
        mask_roi_extractor=dict(out_channels=32),
        mask_head=dict(num_convs=1, in_channels=32, conv_out_channels=32)),
    train_cfg=dict(rpn_proposal=dict(max_per_img=50), rcnn=dict(sampler=dict(num=32))),
    test_cfg=dict(rpn=dict(max_per_img=50), rcnn=dict(score_thr=0.0, max_per_img=5)))
resize = dict(type='Resize', scale=(96, 96))
loader = dict(num_workers=0, persistent_workers=False)
train_dataloader = dict(dataset=dict(pipeline=[
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    resize,
    dict(type='PackDetInputs')]), **loader)
val_dataloader = dict(dataset=dict(pipeline=[
    dict(type='LoadImageFromFile'),
    resize,
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='PackDetInputs', meta_keys=(
        'img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'))]), **loader)
test_dataloader = val_dataloader
train_cfg = dict(max_epochs=1)
optim_wrapper = dict(type='OptimWrapper')
"""

SMALLER_SEGMENTOR = """
load_from = 'downloads/nat_mini_upernet.pth'
model = dict(
    backbone=dict(
        arch=None, embed_dim=32, depths=(1, 1, 1, 1), num_heads=(1, 2, 4, 8), kernel_size=3,
        init_cfg=None),
    decode_head=dict(in_channels=[32, 64, 128, 256], channels=32),
    auxiliary_head=dict(in_channels=128, channels=16))
loader = dict(num_workers=0, persistent_workers=False)
train_dataloader = loader
val_dataloader = loader
test_dataloader = loader
train_cfg = dict(max_iters=2, val_interval=2)
optim_wrapper = dict(type='OptimWrapper')
default_hooks = dict(checkpoint=dict(interval=2))
"""

FEWER_ITERATIONS = """
train_pipeline = _base_.train_dataloader.dataset.pipeline
test_pipeline = _base_.val_dataloader.dataset.pipeline
for step in train_pipeline + test_pipeline:
    if 'scale' in step:
        step['scale'] = (96, 96)
    if 'crop_size' in step:
        step['crop_size'] = (96, 96)
loader = dict(num_workers=0, persistent_workers=False)
train_dataloader = dict(dataset=dict(pipeline=train_pipeline), **loader)
val_dataloader = dict(dataset=dict(pipeline=test_pipeline), **loader)
test_dataloader = val_dataloader
del step
train_cfg = dict(max_iters=2, val_interval=2)
default_hooks = dict(checkpoint=dict(interval=2))
"""

SMALLER_CONFIGS = {
    'my_detector.py': FEWER_ITERATIONS,
    'my_segmentor.py': FEWER_ITERATIONS,
    'configs/detection/nat/mask_rcnn_nat_mini_3x_coco.py': SMALLER_DETECTOR,
    'configs/detection/nat/mask_rcnn_nat_tiny_3x_coco.py': SMALLER_DETECTOR,
    'configs/segmentation/nat/upernet_nat_mini_512x512_160k_ade20k.py': SMALLER_SEGMENTOR,
}
"""Settings to add to a config, in a file that inherits from it and replaces it."""

REPLACED_WORDS = {
    'work_dirs/my_detector/iter_900.pth': 'work_dirs/my_detector/iter_2.pth',
    'work_dirs/my_segmentor/iter_900.pth': 'work_dirs/my_segmentor/iter_2.pth',
}
"""Checkpoints of the shorter training runs above. URLs become `downloads/` plus their last part."""

ADDED_OPTIONS = {
    'nat-mm make-scenes': '--train-scenes 4 --val-scenes 2 --image-size 64',
    'nat-mm analyze': '--shape 96 96 --seconds 0.01',
    'nat-mm train configs/demo/': (
        '--cfg-options train_cfg.max_iters=2 train_cfg.val_interval=2 '
        'default_hooks.checkpoint.interval=2 train_dataloader.batch_size=2'
    ),
}
"""Options added to commands that begin like this; if an option is repeated, the last one wins."""

RUN_ELSEWHERE = {
    r'mim (train|test) mmdet my_config\.py .*': (
        'tests/packaging/test_installed.py::test_detector_trains_tests_and_infers'
    ),
    r'mim (train|test) nat_mm my_segmentor\.py .*': (
        'tests/packaging/test_installed.py::test_segmentor_trains_tests_and_infers'
    ),
    r'nat-mm convert-annotations voc .*': (
        'tests/data/formats/test_voc.py::test_boxes_count_pixels_from_one'
    ),
    r'nat-mm convert-annotations yolo .*': (
        'tests/data/formats/test_yolo.py::test_boxes_and_polygons'
    ),
    r'nat-mm convert-annotations labelme .*': (
        'tests/data/formats/test_labelme.py::test_label_images'
    ),
    r'mim search nat_mm .*': 'tests/packaging/test_installed_model_zoo.py::test_mim_search',
    r'mim download nat_mm .*': 'tests/packaging/test_installed_model_zoo.py::test_mim_download',
    r'tools/dist_train\.sh configs/demo/upernet_nat_demo_(ddp|fsdp)\.py .*': (
        'tests/training/test_strategies.py::test_weights_equal_those_of_one_process_and_one_batch'
    ),
    r'python -m docs\.reproduction': (
        'tests/docs/test_reproduction.py::test_the_script_still_finds_these_numbers'
    ),
    r'nat-mm export .* --part backbone': (
        'tests/commands/test_export.py::test_onnxruntime_computes_the_features'
    ),
    r'nat-mm export configs/demo/upernet_nat_demo\.py .* --preprocess.*': (
        'tests/commands/test_export.py::test_a_segmentor'
    ),
    r'nat-mm export configs/demo/mask_rcnn_nat_demo\.py .*': (
        'tests/export/test_onnx.py::test_mask_rcnn'
    ),
    r'(folder=|g\+\+ |\./segment ).*': 'tests/export/test_deploy.py::test_cpp',
    r'tools/dist_(train|test)\.sh .*': (
        'tests/commands/test_processes.py::test_two_processes_train_and_test'
    ),
    r'tools/slurm_(train|test)\.sh .*': (
        'tests/commands/test_processes.py::test_slurm_scripts_start_the_commands'
    ),
    r'(?:nat-mm predict|python tools/predict\.py) .* 0 --out-dir predicted_camera': (
        'tests/commands/test_predict_video.py::test_camera'
    ),
    r'nat-mm test configs/classification/heads/knn_.*': (
        'tests/analysis/test_nearest_neighbors.py::test_config_is_tested'
    ),
    r'python -m benchmarks\.gpu_results': (
        'tests/benchmarks/test_gpu_results.py::test_the_documented_tables_are_those_of_the_results'
    ),
    r'python -m benchmarks\.gpu_resources': (
        'tests/ops/test_triton.py::test_kernels_fit_their_gpu'
    ),
    r'python -m tests\.gpu': 'tests/gpu/test_report.py::test_without_a_gpu_one_line_says_so',
    r'python -W ignore -m tests\.soak': 'tests/commands/test_kills.py::test_killed_runs_go_on',
    r'python -m tests\.upstream .+': 'tests/upstream/test_comparison.py::test_new_failures',
    r'(?:nat-mm web-demo|python tools/web_demo\.py).*': 'tests/web/test_page.py::test_start',
    r'nat-mm serve .*': (
        'tests/serving/test_command.py::'
        'test_command_answers_what_has_arrived_when_it_is_told_to_end'
    ),
    r'curl .*': 'tests/serving/test_answers.py::test_bodies_and_forms',
    r'docker (build|run) .*': 'tests/serving/test_docker.py::test_hadolint_has_nothing_to_say',
    r'(?:nat-mm demo|python tools/demo\.py).*': (
        'tests/demo/test_demo.py::test_quick_demo_runs_every_step_and_again_over_its_own_folder'
    ),
    r'python -m benchmarks.*': (
        'tests/benchmarks/test_command.py::'
        'test_quick_benchmark_gives_tables_json_and_plot_of_all_sections'
    ),
    r'python -m auditwheel repair .*': (
        'tests/packaging/test_wheel.py::test_shipped_wheel_fits_where_pytorch_does'
    ),
    r'python -m mkdocs build .*': 'tests/docs/test_site.py::test_site_is_built_without_warnings',
}
"""Commands, as patterns, with the separate tests that execute them."""

CONFIG_PAGES_RUN_ELSEWHERE = {
    r'(?:nat-mm train|python tools/train\.py) configs/detection/\w+/.*': (
        'tests/commands/test_train.py::test_detector_is_trained'
    ),
    r'(?:nat-mm train|python tools/train\.py) configs/segmentation/\w+/.*': (
        'tests/commands/test_train.py::test_segmentor_is_trained'
    ),
    r'(?:nat-mm train|python tools/train\.py) configs/classification/.*': (
        'tests/classification/test_commands.py::test_training_learns'
    ),
    r'(?:nat-mm test|python tools/test\.py) configs/detection/.*': (
        'tests/commands/test_test.py::test_detector'
    ),
    r'(?:nat-mm test|python tools/test\.py) configs/segmentation/.*': (
        'tests/commands/test_test.py::test_segmentor'
    ),
    r'(?:nat-mm test|python tools/test\.py) configs/classification/.*': (
        'tests/classification/test_commands.py::test_testing_measures_and_saves'
    ),
}
"""The same for the pages next to the configs; those tests make their models smaller."""
