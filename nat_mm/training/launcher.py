"""Prepares a run for the launcher that started its processes."""

import os

from mmengine.config import Config

from nat_mm.errors import UserError
from nat_mm.training.distributed import prepare_distributed
from nat_mm.training.strategies import prepare_strategy

VARIABLES = {
    'pytorch': ('RANK', 'LOCAL_RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT'),
    'slurm': ('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_NODELIST'),
    'mpi': ('OMPI_COMM_WORLD_LOCAL_RANK', 'OMPI_COMM_WORLD_RANK', 'OMPI_COMM_WORLD_SIZE'),
}
RANKS = {'pytorch': 'RANK', 'slurm': 'SLURM_PROCID', 'mpi': 'OMPI_COMM_WORLD_RANK'}
STARTERS = {'pytorch': 'torchrun (see tools/dist_train.sh)', 'slurm': 'srun', 'mpi': 'mpirun'}


def prepare_launcher(config: Config) -> None:
    """Checks the launcher's variables and prepares processes without a GPU, unlike mmengine.

    Args:
        config: Config of the run; ``launcher`` is none, pytorch, slurm or mpi. Without a GPU, the
            config is changed to work there.

    Raises:
        UserError: If a variable is missing, because the command was not started by that launcher,
            or the launcher needs a GPU.
    """
    launcher = config.launcher
    missing = [name for name in VARIABLES.get(launcher, ()) if name not in os.environ]
    if missing:
        raise UserError(
            f'--launcher {launcher} needs the environment variables of {STARTERS[launcher]}, '
            f'but {", ".join(missing)} {"is" if len(missing) == 1 else "are"} not set'
        )
    try:
        prepare_distributed(config)
        prepare_strategy(config)
    except ValueError as error:
        raise UserError(str(error)) from error


def is_main_process(launcher: str) -> bool:
    """Returns whether this process is the first of those that the launcher started.

    Args:
        launcher: none, pytorch, slurm or mpi, with its variables checked by `prepare_launcher`.
    """
    return launcher == 'none' or os.environ[RANKS[launcher]] == '0'
