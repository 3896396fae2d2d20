"""Fixtures, lanes and process settings that all tests share."""

import copy
import functools
import gc
import json
import logging
import multiprocessing
import os
import resource
import signal
import sys
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from mmengine.logging import MessageHub, MMLogger
from mmengine.registry import DefaultScope

from tests.loading import Run, forget_visualizers, load_command

# Triton reads this when it is imported: without a GPU, its kernels are interpreted.
os.environ['TRITON_INTERPRET'] = '1'

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Background jobs of a script ignore SIGINT, but tests send it to themselves and to commands.
    signal.signal(signal.SIGINT, signal.default_int_handler)

if 'PYTEST_XDIST_WORKER' in os.environ:
    # Workers share the cores. With several threads each, they would wait for one another.
    assert 'torch' not in sys.modules  # torch reads the variables when it is imported
    os.environ.setdefault('OMP_NUM_THREADS', '1')
    # Tests of several threads must not busy-wait for those that other workers keep from running.
    os.environ.setdefault('OMP_WAIT_POLICY', 'passive')

ROOT = Path(__file__).parents[1]


def read_shipped_configs_once() -> None:
    """Caches shipped configs, which no test changes; reading one with its bases takes 50 ms."""
    folders = str(ROOT / 'configs'), sysconfig.get_path('purelib')
    read = Config._file2dict
    results = {}

    def read_once(filename: str, *arguments: object, **options: object) -> tuple[dict, str, dict]:
        path = os.path.realpath(filename)
        if not path.startswith(folders):
            return read(filename, *arguments, **options)
        key = filename, arguments, tuple(options.items())
        if key in results:
            return copy.deepcopy(results[key])
        result = read(filename, *arguments, **options)
        _, text, _ = result
        if '{{$' not in text:  # otherwise it depends on environment variables
            results[key] = copy.deepcopy(result)
        return result

    Config._file2dict = staticmethod(read_once)


read_shipped_configs_once()


def read_onnx_functions_once() -> None:
    """Caches the 500 functions of onnxscript, which PyTorch's exporter parses for each model."""
    # This imports torch, so OMP_NUM_THREADS must be set by now.
    from torch.onnx._internal._lazy_import import onnxscript_apis

    find = type(onnxscript_apis).__getattr__
    onnxscript_apis.get_torchlib_ops = functools.cache(
        lambda: find(onnxscript_apis, 'get_torchlib_ops')()
    )


read_onnx_functions_once()

LANES = {
    'process': (
        'tests/checkpoints/test_files.py::test_no_second_copy_in_memory',
        'tests/commands/test_hostile_checkpoints.py',
        'tests/commands/test_kills.py',
        'tests/commands/test_predict_video.py::test_signal_to_the_command',
        'tests/commands/test_processes.py',
        'tests/commands/test_running.py',
        'tests/commands/test_train.py::test_killed_run_is_resumed',
        'tests/commands/test_work_dir.py',
        'tests/training/test_autocast.py',
        'tests/training/test_distributed.py',
        'tests/compat/test_startup.py',
        'tests/demo/test_demo.py::test_quick_demo',
        'tests/demo/test_runs.py',
        'tests/demo/test_writer.py::test_files_are_byte_identical_in_another_process',
        'tests/docs/test_site.py',
        'tests/export/test_deploy.py',
        'tests/layers/test_bare.py',
        'tests/ops/test_backends.py::test_command',
        'tests/ops/test_cpu_memory.py',
        'tests/ops/test_cpu_processes.py',
        'tests/ops/test_memory.py',
        'tests/packaging',
        'tests/training/test_demo_configs.py',
        'tests/training/test_stopping_processes.py',
        'tests/training/test_strategies.py',
        'tests/serving/test_docker.py',
        'tests/web',
    ),
    'compile': (
        'tests/compat/test_compiled_training.py',
        'tests/compat/test_upstream.py::test_compiled_training',
        'tests/commands/test_export.py',
        'tests/export/test_deploy.py',
        'tests/export/test_onnx.py',
        'tests/layers/test_nat_layer.py::test_compiles_without_graph_break',
        'tests/ops/test_backends.py::test_gradient_of_a_transposed_bias',
        'tests/ops/test_cpu_memory.py',
        'tests/ops/test_large_scores.py::test_triton',
        'tests/ops/test_library.py',
        'tests/ops/test_onnx.py',
        'tests/ops/test_triton.py',
        'tests/ops/test_triton_traced.py',
        'tests/ops/test_triton_tuning.py',
        'tests/packaging',
        'tests/training/test_compile.py',
        'tests/training/test_compiled_backbone.py',
    ),
    'model': (
        'tests/analysis/test_commands.py',
        'tests/analysis/test_nearest_neighbors.py',
        'tests/backbones/test_isotropic.py',
        'tests/backbones/test_published_dilations.py',
        'tests/benchmarks',
        'tests/checkpoints/test_huggingface.py',
        'tests/checkpoints/test_published_models.py',
        'tests/classification',
        'tests/commands',
        'tests/compat/test_models_run.py',
        'tests/configs',
        'tests/data/test_broken_samples.py::test_training',
        'tests/data/test_model_fit.py',
        'tests/docs',
        'tests/export',
        'tests/integrations/test_transformers.py',
        'tests/mask2former',
        'tests/serving/test_answers.py',
        'tests/serving/test_command.py',
        'tests/serving/test_crowd.py',
        'tests/web',
    ),
}
"""Maps markers of pyproject.toml to folders, files, or the start of test ids in a file."""


def pytest_collectstart() -> None:
    """Stops the garbage collector from scanning what imports create again and again."""
    gc.disable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Adds the markers of their lanes to the tests, and sorts them for several workers.

    A worker that runs out of tests takes the last ones of another. The operator's tests need no
    expensive fixtures, so they come last. The web page's tests share a server and a browser, so
    they come first and stay with one worker.
    """
    items.sort(key=lambda item: (not _is_in('web', item), _is_in('ops', item)))
    for item in items:
        path, _, name = item.nodeid.partition('::')
        for lane, start in _read_lanes(path):
            if name.startswith(start):
                item.add_marker(lane)


def _is_in(folder: str, item: pytest.Item) -> bool:
    return item.nodeid.startswith(f'tests/{folder}/')


@functools.cache
def _read_lanes(path: str) -> list[tuple[str, str]]:
    """Returns each lane with tests in a file, and how the ids of these tests begin."""
    found = []
    for lane, places in LANES.items():
        for place in places:
            file, _, start = place.partition('::')
            if not (ROOT / file).exists():
                raise pytest.UsageError(f'LANES in tests/conftest.py names {place}, which is gone')
            if path == file or path.startswith(f'{file}/'):
                found.append((lane, start))
    return found


def pytest_collection_finish() -> None:
    """Re-enables the garbage collector."""
    gc.enable()


frozen_modules = 0


def pytest_runtest_setup() -> None:
    """Keeps what the process has accumulated from slowing down or changing the next test.

    Imports create millions of objects, which are exempted from garbage collection. Running tests
    imports more than collecting them: the modules that their commands need. mmengine registers a
    scope, a logger and a message hub for each run, and copies all scopes each time it enters one.
    The next test would build its models in the last scope, and a run that starts in the same second
    would log where that of the last test did.
    """
    global frozen_modules
    if len(sys.modules) > frozen_modules + 200:
        gc.collect()
        gc.freeze()
        frozen_modules = len(sys.modules)
    for kind in (DefaultScope, MessageHub, MMLogger):
        kind._instance_dict.clear()


PICTURES = {'training': 6, 'validation': 3}
HEIGHT, WIDTH = 96, 128


@pytest.fixture(scope='session')
def small_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images with one dark box and one bright disc each, in COCO's and in ADE20K's format.

    The returned folder contains ``images/{training,validation}/*.jpg``; label images
    ``annotations/{training,validation}/*.png`` with 1 for background, 2 for box and 3 for disc; and
    ``coco/{training,validation}.json`` with the categories box and disc.
    """
    root = tmp_path_factory.mktemp('small_data')
    write_small_data(root)
    return root


def write_small_data(root: Path) -> None:
    """Writes the data of `small_data` into a folder."""
    rng = np.random.default_rng(0)
    for part, count in PICTURES.items():
        for folder in (root / 'images' / part, root / 'annotations' / part, root / 'coco'):
            folder.mkdir(parents=True, exist_ok=True)
        categories = [{'id': 1, 'name': 'box'}, {'id': 2, 'name': 'disc'}]
        coco = {'images': [], 'annotations': [], 'categories': categories}
        for index in range(count):
            _write_scene(root, part, index, rng, coco)
        (root / 'coco' / f'{part}.json').write_text(json.dumps(coco))


@pytest.fixture(scope='session', autouse=True)
def unformatted_configs() -> Iterator[None]:
    """Skips formatting configs for the log, which takes half a second each."""
    with pytest.MonkeyPatch.context() as patch:
        # mmengine imports the function at module level, onedl-mmengine where it is needed.
        for module in ('mmengine.config.config', 'yapf.yapflib.yapf_api'):
            patch.setattr(f'{module}.FormatCode', lambda text, **_: (text, False), raising=False)
        yield


@pytest.fixture(scope='session', autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keeps the cache of checked data out of the user's cache folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('XDG_CACHE_HOME', str(tmp_path_factory.mktemp('cache')))
        yield


@pytest.fixture(scope='session', autouse=True)
def impatient_data_loaders() -> Iterator[None]:
    """Kills the workers of lost data loaders after 0.2 s instead of 5 s each.

    An error from a worker, or a runner, keeps a data loader in a reference cycle. The garbage
    collector closes the loader's queues first, so the workers are never told to stop.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL', 0.2)
        yield


@pytest.fixture(scope='session', autouse=True)
def uncollected_garbage() -> Iterator[None]:
    """Keeps mmengine from collecting garbage, a tenth of a second, for every dataset it builds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('mmengine.dataset.base_dataset.gc', SimpleNamespace(collect=lambda: None))
        yield


@pytest.fixture(autouse=True)
def no_forked_processes() -> Iterator[None]:
    """Ends processes that a test leaves behind, such as the workers of a lost data loader.

    They hold open all files that were open when they were forked. Whoever waits for the end of such
    a file, as the browser's driver does for that of its input, would wait for ever.
    """
    yield
    if multiprocessing.active_children():
        gc.collect()  # lost data loaders end their workers
    for child in multiprocessing.active_children():
        child.kill()
        child.join()


@pytest.fixture(autouse=True)
def open_log_streams() -> None:
    """Gives mmengine's loggers of earlier tests a stream in place of one that capsys closed."""
    for logger in MMLogger._instance_dict.values():
        for handler in logger.handlers:
            stream = getattr(handler, 'stream', None)
            if getattr(stream, 'closed', False) and not isinstance(handler, logging.FileHandler):
                handler.stream = sys.__stdout__  # setStream would flush the closed stream


@pytest.fixture(scope='session')
def train() -> Run:
    """``main`` of tools/train.py."""
    return load_command('train').main


@pytest.fixture(scope='session')
def test() -> Run:
    """``main`` of tools/test.py."""
    return load_command('test').main


@pytest.fixture(autouse=True)
def fresh_visualizer() -> None:
    """Lets each run in this process write to its own work directory, as if in its own process."""
    if 'mmengine.visualization' in sys.modules:
        forget_visualizers()


@pytest.fixture
def limit_file_size() -> Iterator[Callable[[int], None]]:
    """Makes writing beyond a file size fail, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture(scope='session')
def predict() -> Run:
    """``main`` of tools/predict.py."""
    return load_command('predict').main


def _write_scene(root: Path, part: str, index: int, rng: np.random.Generator, coco: dict) -> None:
    picture = rng.integers(100, 140, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    labels = np.ones((HEIGHT, WIDTH), np.uint8)
    left, top = (int(value) for value in rng.integers(4, 30, 2))
    box = np.array([[left, top], [left + 36, top], [left + 36, top + 50], [left, top + 50]])
    angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    disc = np.stack([95 + 20 * np.cos(angles), 50 + 20 * np.sin(angles)], axis=1).astype(int)
    for category, (polygon, gray) in enumerate([(box, 20), (disc, 240)], start=1):
        cv2.fillPoly(picture, [polygon.astype(np.int32)], (gray, gray, gray))
        cv2.fillPoly(labels, [polygon.astype(np.int32)], category + 1)
        x, y = (int(value) for value in polygon.min(0))
        width, height = (int(value) for value in polygon.max(0) - polygon.min(0))
        coco['annotations'].append(
            {
                'id': len(coco['annotations']) + 1,
                'image_id': index,
                'category_id': category,
                'bbox': [x, y, width, height],
                'area': width * height,
                'segmentation': [[float(value) for value in polygon.flatten()]],
                'iscrowd': 0,
            }
        )
    name = f'{index:02d}.jpg'
    coco['images'].append({'id': index, 'file_name': name, 'height': HEIGHT, 'width': WIDTH})
    cv2.imwrite(str(root / 'images' / part / name), picture)
    cv2.imwrite(str(root / 'annotations' / part / f'{index:02d}.png'), labels)
