"""Tests the site that `make docs` builds."""

import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import sync_playwright

from tests.docs.blocks import CONFIG_PAGES, PAGES, ROOT

BROWSERS = ('chromium', 'chromium-browser', 'google-chrome')
OUTSIDE = re.compile(r'<(?:script|img|iframe)[^>]+src="?(?:https?:)?//|<link[^>]+stylesheet[^>]+//')
LINK = re.compile(r'\]\(([^)\s]+)\)')
HEADING = re.compile(r'^#+ (.+)$', flags=re.MULTILINE)


@pytest.fixture(scope='module')
def site(tmp_path_factory) -> Path:
    """The site, built as by `make docs`, but in another folder."""
    folder = tmp_path_factory.mktemp('site')
    result = subprocess.run(
        [sys.executable, '-m', 'mkdocs', 'build', '--strict', '--site-dir', folder],
        cwd=ROOT,
        env={'NO_MKDOCS_2_WARNING': '1', 'PATH': ''},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    (folder / 'log.txt').write_text(result.stdout + result.stderr)
    return folder


def test_site_is_built_without_warnings(site):
    assert 'WARNING' not in (site / 'log.txt').read_text()
    for page in PAGES:
        if page.startswith('docs/'):
            built = (site / page).relative_to(site / 'docs').with_suffix('.html')
            assert (site / built).is_file(), page


def test_nothing_is_fetched_from_outside(site):
    pages = list(site.rglob('*.html'))
    assert len(pages) > len(PAGES)
    assert [page for page in pages if OUTSIDE.search(page.read_text())] == []


def test_search_works_without_a_server(site):
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    with sync_playwright() as playwright:
        if path is None and not Path(playwright.chromium.executable_path).exists():
            pytest.skip('no browser: playwright install chromium')
        browser = playwright.chromium.launch(executable_path=path, args=['--no-sandbox'])
        page = browser.new_page()
        page.goto((site / 'index.html').as_uri())
        page.click('.md-search__input')
        page.keyboard.type('dilation')
        page.wait_for_function(
            "/[0-9]+ matching/.test(document.querySelector('.md-search-result__meta').textContent)"
        )
        assert page.locator('.md-search-result__item').count() > 3
        browser.close()


def test_reference_shows_signatures_and_arguments(site):
    text = re.sub(r'<[^>]+>', '', (site / 'api' / 'ops.html').read_text())
    assert 'neighborhood_attention_2d' in text
    assert 'Odd window size of at least 3' in text
    assert ':func:' not in text


def test_architecture_is_drawn(tmp_path):
    script = runpy.run_path(str(ROOT / 'docs' / 'architecture.py'))
    script['main'](tmp_path / 'architecture.svg')
    drawn = (tmp_path / 'architecture.svg').read_text()
    assert drawn.count('<path') > 100
    committed = (ROOT / 'docs' / 'architecture.svg').read_text()
    assert drawn.count('<g id="patch_') == committed.count('<g id="patch_')


@pytest.mark.parametrize('page', [*PAGES, *CONFIG_PAGES])
def test_links_lead_somewhere(page):
    """Links work in the repository, where GitHub shows the pages; the build checks the site's."""
    for link in LINK.findall((ROOT / page).read_text()):
        parts = urlsplit(link)
        if parts.scheme:
            assert parts.scheme == 'https', link
            assert '.' in parts.netloc, link
            continue
        target = (ROOT / page).parent / parts.path if parts.path else ROOT / page
        assert target.exists(), link
        if parts.fragment and not parts.fragment.startswith('nat_mm.'):
            headings = HEADING.findall(target.read_text())
            anchors = [re.sub(r'[^\w -]', '', each).lower().replace(' ', '-') for each in headings]
            assert parts.fragment in anchors, link
