"""Tests what `make upstream` reports about a run of an upstream suite."""

import subprocess

import pytest

from tests.upstream import __main__ as command

RESULTS = """<testsuites><testsuite>
<testcase classname="tests.test_a.TestA" name="test_passes"/>
<testcase classname="tests.test_a.TestA" name="test_known">
<failure message="no&#10;network"/></testcase>
<testcase classname="tests.test_a.TestA" name="test_skipped"><skipped message="GPU"/></testcase>
<testcase classname="" name="tests.test_b"><error message="collection failure"/></testcase>
</testsuite></testsuites>"""
KNOWN = 'tests.test_a.TestA::test_known  # no network\n'


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A checkout of mmdet whose suite ends as in RESULTS, and the folder of known failures."""
    folder = tmp_path / 'checkout'
    (folder / 'tests').mkdir(parents=True)
    (folder / 'mmdet').mkdir()
    version = command.installed_version('mmdet')
    (folder / 'mmdet' / 'version.py').write_text(f"__version__ = '{version}'\n")
    known = tmp_path / 'known'
    known.mkdir()
    monkeypatch.setattr(command, 'FOLDER', known)

    def run(arguments, **options):
        assert options['cwd'] == folder
        (path,) = (each for each in arguments if each.startswith('--junitxml='))
        with open(path.partition('=')[2], 'w') as file:
            file.write(RESULTS)

    monkeypatch.setattr(subprocess, 'run', run)
    return folder


def test_new_failures(checkout, tmp_path, capsys):
    (tmp_path / 'known' / 'mmdet.txt').write_text(KNOWN)
    assert command.main([f'mmdet={checkout}']) == 1
    output = capsys.readouterr().out
    assert '1 passed, 1 failed as expected, 1 failed unexpectedly, 0 passed that are' in output
    assert 'fails: tests.test_b  # collection failure' in output


def test_known_failures_and_healed_ones(checkout, tmp_path, capsys):
    lines = KNOWN + 'tests.test_b  # import\ntests.test_a.TestA::test_passes  # was broken\n'
    (tmp_path / 'known' / 'mmdet.txt').write_text(lines)
    assert command.main([f'mmdet={checkout}']) == 0
    assert 'passes now, delete it from known/mmdet.txt: tests.test_a.TestA::test_passes' in (
        capsys.readouterr().out
    )


def test_failures_are_written(checkout, tmp_path):
    path = tmp_path / 'known' / 'mmdet.txt'
    kept = 'tests.test_z::not_run  # a reason\ntests.test_b  # by hand\n'
    path.write_text(kept + 'tests.test_a.TestA::test_passes  # was broken\n')
    assert command.main([f'mmdet={checkout}', '--write']) == 0
    assert path.read_text().splitlines() == [
        KNOWN.strip(),
        'tests.test_b  # by hand',
        'tests.test_z::not_run  # a reason',
    ]


@pytest.mark.parametrize(
    ('suite', 'message'),
    [
        ('mmdet', 'write mmcv|mmdet|mmengine|mmpretrain|mmseg=CHECKOUT'),
        ('mmyolo=.', 'write mmcv|mmdet'),
        ('mmdet=.', 'is no checkout of mmdet with its tests'),
    ],
    ids=['no-path', 'unknown', 'no-checkout'],
)
def test_wrong_arguments(suite, message, capsys):
    with pytest.raises(SystemExit, match='2'):
        command.main([suite])
    assert message in capsys.readouterr().err


def test_another_release(checkout, capsys):
    (checkout / 'mmdet' / 'version.py').write_text("__version__ = '3.0.0'\n")
    with pytest.raises(SystemExit, match='2'):
        command.main([f'mmdet={checkout}'])
    assert 'is another release than the installed mmdet' in capsys.readouterr().err
