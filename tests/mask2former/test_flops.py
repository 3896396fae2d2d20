"""Tests the multiply-adds of whole models; the published numbers are for 800 x 800 images."""

import copy

import pytest

from nat_mm.analysis.flops import count_costs
from nat_mm.analysis.workloads import find_workload

BILLIONS = {'semantic': 518, 'panoptic': 522}


@pytest.mark.parametrize('built', BILLIONS, indirect=True)
def test_published_flops(built):
    task, config, model = built
    workload = find_workload(model, config)
    costs = count_costs(copy.deepcopy(model), (800, 800), workload.run)
    assert costs.parameters[''] / 1e6 == pytest.approx(220, abs=0.5)
    assert costs.multiply_adds[''] / 1e9 == pytest.approx(BILLIONS[task], abs=0.5)
