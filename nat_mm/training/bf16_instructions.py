"""Avoids bf16 instructions that CPUs advertise but cannot run.

Some virtual machines advertise AMX but kill processes that use it (SIGILL).
"""

import functools
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

from mmengine.logging import print_log

_VARIABLE = 'ONEDNN_MAX_CPU_ISA'
_WITHOUT_AMX = 'AVX512_CORE_BF16'
_PROBE = (
    'import torch; a = torch.ones(64, 64, dtype=torch.bfloat16); torch.nn.functional.linear(a, a)'
)


@functools.cache
def avoid_unusable_amx() -> None:
    """Keeps oneDNN from using AMX if a trial in another process is killed by it.

    Must be called before the first matrix product of this process, because oneDNN reads its
    settings only once. The trial runs only on CPUs that advertise bf16 instructions, and not if the
    user has set ``ONEDNN_MAX_CPU_ISA``.
    """
    if _VARIABLE in os.environ or not _announces_bf16():
        return
    trial = subprocess.run([sys.executable, '-c', _PROBE], capture_output=True)
    if trial.returncode == -signal.SIGILL:
        os.environ[_VARIABLE] = _WITHOUT_AMX
        print_log(
            f'bf16 matrix products crash with the instructions that this CPU announces; '
            f'set {_VARIABLE}={_WITHOUT_AMX} for this process.',
            logger='current',
        )


def _announces_bf16() -> bool:
    cpuinfo = Path('/proc/cpuinfo')
    return cpuinfo.exists() and bool(re.search(r'\b(amx_bf16|avx512_bf16)\b', cpuinfo.read_text()))
