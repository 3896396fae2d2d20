"""Tests that only the listed warnings are silenced."""

import warnings

from nat_mm.compat import noise


def test_only_known_warnings_are_silenced():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        noise.repair(warnings)
        warnings.warn('pkg_resources is deprecated as an API. See ...', UserWarning, stacklevel=1)
        warnings.warn('something that the user can change', UserWarning, stacklevel=1)
    assert [str(warning.message) for warning in caught] == ['something that the user can change']
