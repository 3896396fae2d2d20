"""mmdet's Open Images Challenge dataset misspells the key that OpenImagesMetric reads.

So a run ends in a KeyError at its first validation.
"""

import functools
from types import ModuleType
from typing import Any

from nat_mm.compat import NOT_REPORTED

# OneDL's fork is still broken in 3.5.1.
BROKEN_IN = {'mmdet': '<3.6'}
UPSTREAM = NOT_REPORTED
MODULES = ('mmdet.datasets.openimages',)


def repair(module: ModuleType) -> None:
    """Gives the objects of the dataset ``is_group_of``, as those of the other Open Images have.

    Users may have mended the key themselves, in mmdet or in a subclass.

    Args:
        module: ``mmdet.datasets.openimages``.
    """
    load = module.OpenImagesChallengeDataset.load_data_list

    @functools.wraps(load)
    def load_data_list(self: Any) -> list[dict[str, Any]]:
        entries = load(self)
        for entry in entries:
            for instance in entry['instances']:
                if 'is_group_ofs' in instance:
                    instance['is_group_of'] = instance['is_group_ofs']
        return entries

    module.OpenImagesChallengeDataset.load_data_list = load_data_list
