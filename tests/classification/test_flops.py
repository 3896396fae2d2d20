"""Tests that classifiers cost the published FLOPs at the resolution of their test pipelines."""

import copy

import pytest

from nat_mm.analysis.flops import count_costs
from nat_mm.analysis.workloads import find_workload

pytest.importorskip('mmpretrain', reason='classification needs mmpretrain')


@pytest.mark.parametrize(
    'classifier',
    [
        # DiNATs up to Base cost as much as the NATs.
        *('nat_mini_in1k_224', 'nat_small_in1k_224', 'dinat_base_in1k_224'),
        *('dinat_large_in22k_in1k_224', 'dinat_large_in22k_in1k_384'),
        'dinat_large_in22k_in1k_384_11x11',
        *('dinat_s_tiny_in1k_224', 'dinat_s_small_in1k_224', 'dinat_s_large_in22k_in1k_384'),
    ],
    indirect=True,
)
def test_flops_are_the_published(classifier, model, metadata):
    config, facts = classifier
    workload = find_workload(model, config)
    shape = workload.find_shape(config)
    assert shape == (facts['resolution'],) * 2
    costs = count_costs(copy.deepcopy(model), shape, workload.run)
    assert costs.multiply_adds[''] == pytest.approx(metadata['FLOPs'], rel=0.01)
