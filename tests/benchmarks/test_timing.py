import pytest

from benchmarks.timing import alternating_medians


class FakeMachine:
    """A clock, and functions that advance it."""

    def __init__(self):
        self.now = 0.0
        self.log = []

    def clock(self):
        return self.now

    def function(self, name, durations):
        durations = iter(durations)

        def run():
            self.log.append(name)
            self.now += next(durations)

        return run


def test_medians_of_functions_that_take_turns():
    machine = FakeMachine()
    # The first two calls of each function do not count.
    functions = {
        'slow': machine.function('slow', [90, 5, 5, 100, 6, 4, 7]),
        'fast': machine.function('fast', [90, 1, 1, 3, 2, 50, 2]),
    }
    medians = alternating_medians(functions, repeats=5, sample_seconds=0, clock=machine.clock)
    assert medians == {'slow': 6, 'fast': 2}
    assert machine.log[:4] == ['slow', 'slow', 'fast', 'fast']
    assert machine.log[4:] == ['slow', 'fast'] * 5


def test_short_functions_are_called_until_a_sample_is_long_enough():
    machine = FakeMachine()
    functions = {
        'short': machine.function('short', [0.25] * 2 + [0.25, 0.5, 0.25, 1.0] * 3),
        'long': machine.function('long', [3.0] * 5),
    }
    medians = alternating_medians(functions, repeats=3, sample_seconds=1, clock=machine.clock)
    assert medians == {'short': 0.5, 'long': 3.0}
    assert machine.log[4:] == (['short'] * 4 + ['long']) * 3


def test_a_clock_too_coarse_for_a_call_does_not_divide_by_zero():
    machine = FakeMachine()
    functions = {'instant': machine.function('instant', [0.0] * 100)}
    medians = alternating_medians(functions, repeats=1, sample_seconds=1e-6, clock=machine.clock)
    assert medians == {'instant': pytest.approx(0)}
