"""Makes checkpoints that are damaged at random places or contain unexpected values."""

import copy
import io
import json
import random
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import torch

from nat_mm.checkpoints import read_checkpoint

VALUES = {
    'None': None,
    'text': 'x',
    'a number': 3,
    'a negative number': -1,
    'a large number': 10**18,
    'NaN': float('nan'),
    'a list': [1, 'x'],
    'a dict': {3: 'x'},
    'a tensor': torch.ones(2),
    'an array': np.ones(2),
    'nothing': [],
}
GLOBALS = (
    b'numpy\nndarray',
    b'numpy\ndtype',
    b'numpy._core.multiarray\n_reconstruct',
    b'numpy._core.multiarray\nscalar',
    b'__builtin__\ngetattr',
    b'__builtin__\neval',
    b'posix\nsystem',
    b'collections\nOrderedDict',
    b'mmengine.logging.history_buffer\nHistoryBuffer',
    b'torch\nFloatStorage',
    b'torch._utils\n_rebuild_tensor_v2',
    b'torch._utils\n_rebuild_parameter',
    b'torch._tensor\n_rebuild_from_type_v2',
)
OF_CLASSES = (
    'meta', 'meta.dataset_meta', 'meta.dataset_meta.classes', 'meta.dataset_meta.palette',
    'state_dict',
)  # fmt: skip
OF_TRAINING = (
    'meta', 'meta.iter', 'meta.epoch', 'meta.seed', 'meta.cfg', 'meta.config', 'meta.dataset_meta',
    'message_hub', 'message_hub.log_scalars', 'message_hub.runtime_info',
    'message_hub.resumed_keys',
    'optimizer', 'optimizer.state', 'optimizer.param_groups', 'param_schedulers', 'state_dict',
    'ema_state_dict',
)  # fmt: skip
"""Places in an mmengine checkpoint that matter to prediction, and to resuming."""

Write = Callable[[Path], None]


def damaged(checkpoint: Path, safetensors: Path) -> Iterator[tuple[str, Write]]:
    """Makes copies with wrong bytes of an mmengine checkpoint and of one in safetensors format.

    Yields:
        The name of each copy, which says what is wrong, and a function that writes it; the same
        in every run.
    """
    legacy = io.BytesIO()
    content = read_checkpoint(str(checkpoint))
    torch.save(content, legacy, _use_new_zipfile_serialization=False)
    sources = {
        'zip.pth': checkpoint.read_bytes(),
        'legacy.pth': legacy.getvalue(),
        'weights.safetensors': safetensors.read_bytes(),
    }
    for number in range(12):
        for name, data in sources.items():
            yield f'flipped_{number}_{name}', _writer(_flip, data, number)
    for number in range(5):
        for name, data in sources.items():
            yield f'cut_{number}_{name}', _writer(_cut, data, number)
    for number in range(30):
        yield f'swapped_{number}.pth', _writer(_swap_globals, sources['zip.pth'], number)
    for number in range(16):
        data = sources['weights.safetensors']
        yield f'header_{number}.safetensors', _writer(_lie, data, number)


def unexpected(checkpoint: Path, places: Iterable[str]) -> Iterator[tuple[str, Write]]:
    """Makes copies of a checkpoint with a value of another kind at a place such as ``meta.iter``.

    Yields:
        The name of each copy, which says what is wrong, and a function that writes it.
    """
    content = read_checkpoint(str(checkpoint))
    for place in places:
        for kind, value in VALUES.items():
            yield f'{place} is {kind}.pth', _putter(content, place.split('.'), value)


def _writer(change: Callable[[bytes, random.Random], bytes], data: bytes, seed: int) -> Write:
    return lambda path: path.write_bytes(change(data, random.Random(seed)))


def _flip(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    # The first and the last bytes describe the others.
    places = rng.randrange(2000), -1 - rng.randrange(2000), rng.randrange(len(data))
    changed[rng.choice(places)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _cut(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.choice((rng.randrange(100), rng.randrange(len(data)), len(data) - 1))]


def _swap_globals(data: bytes, rng: random.Random) -> bytes:
    """Replaces the name of a class or function somewhere in the pickle of a checkpoint."""
    changed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(changed, 'w') as new:
        for name in old.namelist():
            part = old.read(name)
            if name.endswith('data.pkl'):
                found = [each for each in GLOBALS if b'c' + each + b'\n' in part]
                before, after = rng.choice(found), rng.choice(GLOBALS)
                part = part.replace(
                    b'c' + before + b'\n', b'c' + after + b'\n', rng.choice((1, -1))
                )
            new.writestr(name, part)
    return changed.getvalue()


def _lie(data: bytes, rng: random.Random) -> bytes:
    """Falsifies the header of a safetensors file."""
    length = int.from_bytes(data[:8], 'little')
    header, numbers = json.loads(data[8 : 8 + length]), data[8 + length :]
    tensor = header[rng.choice([name for name in header if name != '__metadata__'])]
    lies = {
        'dtype': ['F64', 'BOOL', 'X1', 3],
        'shape': [[2**40], [-1], 'x', [[1]], [], None],
        'data_offsets': [[0, 2**40], [-4, 0], [8, 4], [0], 'x', None],
    }
    metas = [3, '3', '[' * 10**5, '{"dataset_meta": 3}', '{"dataset_meta": {"classes": [3]}}']
    if rng.random() < 0.3:
        header['__metadata__'] = {'meta': rng.choice(metas)}
    else:
        key = rng.choice([*lies])
        tensor[key] = rng.choice(lies[key])
    text = json.dumps(header).encode()
    length = rng.choice((len(text), len(text), 2**60, len(text) // 2))
    return length.to_bytes(8, 'little') + text + numbers


def _putter(content: dict, place: list[str], value: object) -> Write:
    def write(path: Path) -> None:
        wrong = inner = copy.copy(content)
        for key in place[:-1]:
            inner[key] = copy.copy(inner[key])
            inner = inner[key]
        inner[place[-1]] = value
        torch.save(wrong, path)

    return write
