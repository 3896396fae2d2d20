"""Stand-ins for operators that only a compiled mmcv has."""

from collections.abc import Callable
from typing import NoReturn

_INSTALL_HELP = (
    "needs mmcv's compiled operators, which are not installed. Replace mmcv-lite by a compiled "
    'mmcv 2.1.0: "pip uninstall mmcv-lite", then "mim install mmcv==2.1.0" (wheels exist for some '
    'torch versions) or build it from source '
    '(https://mmcv.readthedocs.io/en/latest/get_started/build.html).'
)


def unavailable_op(name: str) -> Callable[..., NoReturn]:
    """Stand in for an operator, so that the modules of ``mmcv.ops`` can be imported.

    Args:
        name: Name of the operator in ``mmcv._ext``.

    Returns:
        A function that raises NotImplementedError, naming the operator, when it is called.

    Raises:
        AttributeError: If ``name`` is a special name such as ``__path__``, not an operator.
    """
    if name.startswith('__'):
        raise AttributeError(f"module 'mmcv._ext' has no attribute {name!r}")

    def raise_unavailable(*args, **kwargs) -> NoReturn:
        raise NotImplementedError(f'{name} {_INSTALL_HELP}')

    raise_unavailable.__name__ = name
    return raise_unavailable
