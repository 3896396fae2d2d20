"""A GPU for machines without one: CPU tensors that claim to be on it, and fail where its would."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

GPU = torch.device('cuda', 0)
_COPIES = ('aten::copy_', 'aten::_to_copy')
_INDEXING = ('aten::index', 'aten::index_put_', 'aten::_index_put_impl_')
_ANSWERS = {
    '_lazy_init': None,
    'is_available': True,
    'current_device': 0,
    'is_bf16_supported': True,
}


class _GpuTensor(Tensor):
    """A tensor whose data are on the CPU."""

    data_on_cpu: Tensor

    @staticmethod
    def __new__(cls, data: Tensor) -> '_GpuTensor':
        tensor = Tensor._make_wrapper_subclass(
            cls,
            data.size(),
            strides=data.stride(),
            storage_offset=data.storage_offset(),
            dtype=data.dtype,
            device=GPU,
        )
        tensor.data_on_cpu = data
        return tensor

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, operator, types, arguments=(), options=None) -> Any:
        return _run(operator, arguments, options or {})

    # PyTorch would make these from lists in C++, where it does not ask __torch_dispatch__.
    def __getitem__(self, index: Any) -> Tensor:
        return super().__getitem__(_with_tensors(index))

    def __setitem__(self, index: Any, value: Any) -> None:
        super().__setitem__(_with_tensors(index), value)

    def new_tensor(self, data: Any, **options: Any) -> Tensor:
        data = pytree.tree_map(lambda x: x.tolist() if isinstance(x, _GpuTensor) else x, data)
        return torch.tensor(data, **{'dtype': self.dtype, 'device': self.device} | options)

    def tolist(self) -> Any:
        return self.data_on_cpu.tolist()

    def numpy(self, **options: Any) -> None:
        raise TypeError("can't convert a tensor on a GPU to numpy")

    def __array__(self, *arguments: Any) -> None:
        self.numpy()


class _SimulatedGpu(TorchDispatchMode):
    def __torch_dispatch__(self, operator, types, arguments=(), options=None) -> Any:
        return _run(operator, arguments, options or {})


@contextmanager
def simulated_gpu() -> Iterator[torch.device]:
    """Yields the device of a GPU, simulated if there is none; on that, gradients do not work."""
    if torch.cuda.is_available():
        yield GPU
        return
    if torch.version.cuda is None:
        pytest.skip('PyTorch was built without CUDA')
    torch._C._ensureCUDADeviceGuardSet()
    before = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor copies to the GPU by an operator
    try:
        with ExitStack() as stack:
            for name, result in _ANSWERS.items():
                stack.enter_context(mock.patch.object(torch.cuda, name, return_value=result))
            stack.enter_context(torch.backends.cudnn.flags(enabled=False))
            stack.enter_context(_SimulatedGpu())
            yield GPU
    finally:
        torch._C._set_only_lift_cpu_tensors(False)
        torch.__future__.set_overwrite_module_params_on_conversion(before)


def _with_tensors(index: Any) -> Any:
    parts = index if isinstance(index, tuple) else (index,)
    parts = [
        torch.tensor(part, dtype=None if part else torch.long) if isinstance(part, list) else part
        for part in parts
    ]
    return tuple(parts) if isinstance(index, tuple) else parts[0]


def _run(operator, arguments: tuple, options: dict[str, Any]) -> Any:
    """Runs an operator on the data, and wraps its results if they would be on the GPU."""
    leaves, structure = pytree.tree_flatten((arguments, options))
    on_gpu = [leaf for leaf in leaves if isinstance(leaf, _GpuTensor)]
    on_cpu = [
        leaf for leaf in leaves if isinstance(leaf, Tensor) and not isinstance(leaf, _GpuTensor)
    ]
    if on_gpu and on_cpu and not _may_mix(operator, arguments, on_cpu):
        shapes = [f'{list(leaf.shape)} on {leaf.device}' for leaf in (*on_gpu, *on_cpu)]
        raise RuntimeError(f'{operator} got tensors on different devices: {", ".join(shapes)}')
    device = options.get('device')
    if device is not None:
        is_on_gpu = torch.device(device).type == 'cuda'
    elif operator._schema.name == 'aten::copy_':
        is_on_gpu = isinstance(arguments[0], _GpuTensor)
    else:
        is_on_gpu = bool(on_gpu)
    known = {id(leaf.data_on_cpu): leaf for leaf in on_gpu} | {id(leaf): leaf for leaf in on_cpu}
    leaves = [leaf.data_on_cpu if isinstance(leaf, _GpuTensor) else leaf for leaf in leaves]
    arguments, options = pytree.tree_unflatten(leaves, structure)
    if device is not None:
        options['device'] = 'cpu' if is_on_gpu else device

    def wrap(result: Any) -> Any:
        if not isinstance(result, Tensor):
            return result
        if id(result) in known:  # changed in place
            return known[id(result)]
        return _GpuTensor(result) if is_on_gpu else result

    return pytree.tree_map(wrap, operator(*arguments, **options))


def _may_mix(operator, arguments: tuple, on_cpu: list[Tensor]) -> bool:
    """Returns whether PyTorch lets an operator take tensors on a GPU and these on the CPU."""
    name = operator._schema.name
    if name in _COPIES:
        return True
    if name in _INDEXING:  # a GPU tensor takes indices on the CPU, but not the other way round
        values = [each for each in arguments[2:3] if isinstance(each, Tensor)]
        return isinstance(arguments[0], _GpuTensor) and all(
            isinstance(each, _GpuTensor) or each.dim() == 0 for each in values
        )
    is_number = all(each.dim() == 0 for each in on_cpu)
    takes_numbers = torch.Tag.pointwise in operator.tags or 'fill' in name
    return is_number and takes_numbers
