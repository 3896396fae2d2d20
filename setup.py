"""Build script for what pyproject.toml cannot say."""

from setuptools import setup

setup(
    # Python runs the start-up file only from the top of site-packages. `../purelib` is, within a
    # wheel's .data directory, the name of that place, for ordinary and for editable wheels alike.
    data_files=[('../purelib', ['nat_mm_startup.pth'])],
)
