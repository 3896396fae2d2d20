import pytest

from benchmarks import backbone, growth, module, operator
from benchmarks.settings import Settings
from benchmarks.summary import GROWTH, MATMUL_FRACTION, MEMORY, SPEEDUP, merge
from benchmarks.timing import alternating_medians


def operator_row(map, backend, milliseconds, *, mode='forward'):
    fraction = 1 / milliseconds if mode == 'forward' else None
    return operator.OperatorRow(
        map=map,
        dtype='float32',
        mode=mode,
        backend=backend,
        milliseconds=milliseconds,
        gflops=fraction,
        matmul_fraction=fraction,
    )


def test_operator_is_summed_up_by_geometric_means_over_the_maps_measured_for_both():
    both = 'forward + backward'
    rows = [
        operator_row('large', 'cpu', 4.0),
        operator_row('large', 'portable', 40.0),
        operator_row('large', 'cpu', 10.0, mode=both),
        operator_row('large', 'portable', 50.0, mode=both),
        operator_row('small', 'cpu', 1.0),
        operator_row('small', 'portable', 40.0),
        operator_row('small', 'natten', 70.0),
        operator_row('small', 'cpu', 1.0, mode=both),
        operator_row('small', 'portable', 20.0, mode=both),
    ]
    assert operator.summarize(rows) == {
        MATMUL_FRACTION: {'operator forward, float32: cpu': pytest.approx(0.5)},
        SPEEDUP: {
            'operator forward, float32: cpu against portable': pytest.approx(20),
            'operator forward, float32: cpu against natten (1 of 2 maps)': pytest.approx(70),
            'operator forward + backward, float32: cpu against portable': pytest.approx(10),
        },
    }


def test_module_gives_mean_and_least_ratio():
    rows = [
        module.ModuleRow(
            map=map,
            mode='forward',
            na_milliseconds=1.0,
            swin_milliseconds=1.0,
            swin_shifted_milliseconds=1.0,
            swin_to_na=ratio,
        )
        for map, ratio in (('large', 2.0), ('small', 8.0))
    ]
    assert module.summarize(rows) == {
        SPEEDUP: {
            'module forward: NA against Swin': pytest.approx(4),
            'module forward: NA against Swin, least of the maps': 2.0,
        }
    }


def test_backbone_compares_time_and_the_increase_of_memory():
    rows = [
        backbone.BackboneRow(
            input='1x3x64x96',
            mode='inference',
            dtype='float32',
            backbone=name,
            milliseconds=milliseconds,
            mib_increase=increase,
            mib_peak=increase + 500,
        )
        for name, milliseconds, increase in (('NAT-Tiny', 10, 60), ('Swin-Tiny', 25, 100))
    ]
    name = 'backbone inference, float32, 1x3x64x96: NAT-Tiny against Swin-Tiny'
    assert backbone.summarize(rows) == {SPEEDUP: {name: 2.5}, MEMORY: {name: 0.6}}


def test_growth_compares_the_largest_image_with_the_smallest(monkeypatch):
    monkeypatch.setattr(growth, 'alternating_medians', lambda functions, **_: {64: 1.0, 96: 4.5})
    rows = growth.measure(Settings(threads=1, quick=True))
    assert [(row.what, row.side) for row in rows] == [
        ('operator', 64),
        ('operator', 96),
        ('NAT-Tiny', 64),
        ('NAT-Tiny', 96),
    ]
    expected = pytest.approx(2.0)  # 4.5 times the time on 2.25 times the area
    assert growth.summarize(rows) == {
        GROWTH: {
            'operator, 96x96 against 64x64': expected,
            'NAT-Tiny, 96x96 against 64x64': expected,
        }
    }


def test_module_ratio_takes_the_mean_of_both_of_swins_windows(monkeypatch):
    def medians(functions, **options):
        alternating_medians(functions, **options)
        return {'na': 2.0, 'swin': 3.0, 'swin_shifted': 7.0}

    monkeypatch.setattr(module, 'alternating_medians', medians)
    rows = module.measure(Settings(threads=1, repeats=1, quick=True))
    assert [row.swin_to_na for row in rows] == [2.5] * 4


def test_merged_summaries_keep_the_figures_of_a_common_group():
    merged = merge([{SPEEDUP: {'a': 1.0}}, {MEMORY: {'b': 2.0}, SPEEDUP: {'c': 3.0}}])
    assert merged == {SPEEDUP: {'a': 1.0, 'c': 3.0}, MEMORY: {'b': 2.0}}


def test_benchmark_measures_the_stages_of_nat_tiny_on_an_800_x_1344_image():
    settings = Settings(threads=2)
    maps = ['200x336x64/2', '100x168x128/4', '50x84x256/8', '25x42x512/16']
    assert [str(stage) for stage in settings.stage_maps] == maps
    assert {stage.head_dim for stage in settings.stage_maps} == {32}
