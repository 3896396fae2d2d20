"""Writes checkpoint files for tests."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

Save = Callable[..., str]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Saves a checkpoint and returns its path."""

    def save_to_file(checkpoint: Any, name: str = 'checkpoint.pth') -> str:
        torch.save(checkpoint, tmp_path / name)
        return str(tmp_path / name)

    return save_to_file
