"""Build information that mmcv reports when it collects the environment."""

_NOT_COMPILED = 'none (operators served by nat_mm)'


def get_compiler_version() -> str:
    """Return a note that no compiler was involved."""
    return _NOT_COMPILED


def get_compiling_cuda_version() -> str:
    """Return a note that no CUDA compiler was involved."""
    return _NOT_COMPILED
