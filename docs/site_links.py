"""MkDocs hook that adds files outside docs/ to the site if pages link to them.

In a checkout, such links lead to files in the repository. The site has no repository to link to, so
each of these files, and each file that these link to in turn, gets its own page.
"""

import os
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / 'docs'
FOLDER = 'repository'
LINK = re.compile(r'(?<=\]\()(?!\w+:|#|/)([^)#\s]+)')
FENCED = re.compile(r'^(```+).*?^\1', flags=re.DOTALL | re.MULTILINE)
UNSEARCHED = '---\nsearch:\n  exclude: true\n---\n'
LANGUAGES = {'.py': 'python', '.cpp': 'cpp', '.h': 'cpp', '.yml': 'yaml', '.sh': 'sh'}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds pages for the files in the repository that are linked to."""
    waiting = [Path(file.abs_src_path) for file in files.documentation_pages()]
    seen = set(waiting)
    while waiting:
        for target in _linked(waiting.pop()) - seen:
            seen.add(target)
            if DOCS not in target.parents and ROOT in target.parents:
                waiting.append(target)
                files.append(File.generated(config, _place(target), content=_content(target)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Adapts links between pages and repository files to their places on the site."""
    place = page.file.src_uri
    inside = place.removeprefix(f'{FOLDER}/')
    source = DOCS / place if inside == place else ROOT / inside

    def relink(match: re.Match) -> str:
        target = (source.parent / match[1]).resolve()
        if not target.exists() or ROOT not in target.parents:
            return match[1]
        return os.path.relpath(_place(target), os.path.dirname(place))

    return LINK.sub(relink, markdown)


def _linked(path: Path) -> set[Path]:
    """Returns the existing files and folders that a page links to."""
    if path.is_dir():
        return {each for each in path.iterdir() if each.suffix in LANGUAGES}
    if path.suffix != '.md':
        return set()
    text = FENCED.sub('', path.read_text())
    targets = ((path.parent / name).resolve() for name in LINK.findall(text))
    return {target for target in targets if target.exists()}


def _place(path: Path) -> str:
    """Returns the path of the page for a file or folder, relative to the site's source."""
    if DOCS in path.parents:
        return path.relative_to(DOCS).as_posix()
    name = f'{FOLDER}/{path.relative_to(ROOT).as_posix()}'
    if path.is_dir():
        return f'{name}/index.md'
    return name if path.suffix == '.md' else f'{name}.md'


def _content(path: Path) -> str:
    """Returns the page for a file or folder, with links as in the repository."""
    if path.suffix == '.md':
        return path.read_text()
    title = f'{UNSEARCHED}# {path.relative_to(ROOT)}'
    if path.is_dir():
        names = sorted(each.name for each in _linked(path))
        return '\n'.join([title, '', *(f'- [{name}]({name})' for name in names)])
    return f'{title}\n\n````{LANGUAGES.get(path.suffix, "text")}\n{path.read_text()}\n````\n'
