"""Runs OpenMMLab's own test suites with nat_mm and compares failures with the known ones.

    python -m tests.upstream mmdet=/path/to/mmdetection mmseg=/path/to/mmsegmentation

Each path is a checkout of the release that is installed here; the checkout's package is tested.
``--only`` takes folders or files below it. ``--write`` writes the failures of this run to
expected_failures/, with the name of a test and why it fails in each line.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree

from nat_mm.compat import installed_version

FOLDER = Path(__file__).parent / 'expected_failures'
PACKAGES = ('mmcv', 'mmdet', 'mmengine', 'mmpretrain', 'mmseg')
SECONDS_FOR_A_TEST = 300
SEPARATOR = '  # '


def main(argv: list[str] | None = None) -> int:
    """Runs the suites; returns 1 if a test fails unexpectedly and 2 if a suite cannot run."""
    parser = argparse.ArgumentParser(
        prog='python -m tests.upstream',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('suites', nargs='+', metavar='PACKAGE=CHECKOUT', type=_parse_suite)
    parser.add_argument('--only', nargs='+', default=['tests'], metavar='PATH')
    parser.add_argument('--write', action='store_true')
    arguments = parser.parse_args(argv)
    status = 0
    for package, checkout in arguments.suites:
        outcomes = run_suite(package, checkout, arguments.only)
        if outcomes is None:
            return 2
        if arguments.write:
            write_expected(package, outcomes)
        status = max(status, report(package, outcomes))
    return status


def run_suite(package: str, checkout: Path, paths: list[str]) -> dict[str, str | None] | None:
    """Runs a suite in a separate process.

    Returns:
        For each test, by name, why it failed, or None if it passed. None if nothing ran.
    """
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / 'results.xml'
        # The suites' own settings ask for plugins that only upstream needs.
        command = [
            *(sys.executable, '-m', 'pytest', '-c', '/dev/null', '--rootdir', str(checkout)),
            *('-p', 'nat_mm', '-p', 'no:cacheprovider', '-q', '--tb=line', '-W', 'ignore'),
            *(f'--timeout={SECONDS_FOR_A_TEST}', '--numprocesses', 'auto', '--maxprocesses', '4'),
            *(f'--junitxml={results}', *paths),
        ]
        subprocess.run(command, cwd=checkout, stdout=sys.stderr, check=False)
        if not results.exists():
            print(f'{package}: pytest ran nothing in {checkout}', file=sys.stderr)
            return None
        return read_outcomes(results)


def read_outcomes(results: Path) -> dict[str, str | None]:
    """Reads pytest's JUnit file without skipped tests."""
    outcomes: dict[str, str | None] = {}
    for case in ElementTree.parse(results).iter('testcase'):
        name = '::'.join(filter(None, (case.get('classname'), case.get('name'))))
        name = name.replace('\n', ' ')
        failures = [*case.iter('failure'), *case.iter('error')]
        if failures:
            message = failures[0].get('message') or failures[0].text or ''
            outcomes[name] = ' '.join(message.split())[:100]
        elif case.find('skipped') is None:
            outcomes.setdefault(name, None)
    return outcomes


def report(package: str, outcomes: dict[str, str | None]) -> int:
    """Prints differences from the known failures; returns 1 if there are new failures."""
    expected = read_expected(package)
    failed = {name: why for name, why in outcomes.items() if why is not None}
    new = sorted(failed.keys() - expected.keys())
    healed = sorted(name for name in expected if name in outcomes and outcomes[name] is None)
    print(
        f'{package} {installed_version(package)}: {len(outcomes) - len(failed)} passed, '
        f'{len(failed) - len(new)} failed as expected, {len(new)} failed unexpectedly, '
        f'{len(healed)} passed that are listed as failures'
    )
    for name in new:
        print(f'  fails: {name}{SEPARATOR}{failed[name]}')
    for name in healed:
        print(f'  passes now, delete it from {FOLDER.name}/{package}.txt: {name}')
    return int(bool(new))


def read_expected(package: str) -> dict[str, str]:
    """Reads the known failures and their reasons."""
    path = FOLDER / f'{package}.txt'
    lines = path.read_text().splitlines() if path.exists() else []
    pairs = (line.partition(SEPARATOR) for line in lines if line and not line.startswith('#'))
    return {name: why for name, _, why in pairs}


def write_expected(package: str, outcomes: dict[str, str | None]) -> None:
    """Writes the failures of this run, and known ones that did not pass with their reasons."""
    expected = read_expected(package)
    kept = {name: why for name, why in expected.items() if outcomes.get(name, '') is not None}
    failed = {name: why for name, why in outcomes.items() if why is not None}
    lines = [f'{name}{SEPARATOR}{why}'.rstrip() for name, why in sorted({**failed, **kept}.items())]
    (FOLDER / f'{package}.txt').write_text('\n'.join(lines) + '\n' if lines else '')


def _parse_suite(text: str) -> tuple[str, Path]:
    package, _, path = text.partition('=')
    checkout = Path(path).expanduser().resolve()
    if package not in PACKAGES or not path:
        raise argparse.ArgumentTypeError(f'{text!r}: write {"|".join(PACKAGES)}=CHECKOUT')
    versions = checkout / package / 'version.py'
    if not (checkout / 'tests').is_dir() or not versions.is_file():
        raise argparse.ArgumentTypeError(f'{checkout} is no checkout of {package} with its tests')
    if f"'{installed_version(package)}'" not in versions.read_text():
        raise argparse.ArgumentTypeError(
            f'{checkout} is another release than the installed {package} '
            f'{installed_version(package)}: check out its tag'
        )
    return package, checkout


if __name__ == '__main__':
    sys.exit(main())
