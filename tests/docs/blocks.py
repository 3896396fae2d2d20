"""The code that Markdown pages show: fenced blocks, and commands within the text."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = ('README.md', *sorted(str(p.relative_to(ROOT)) for p in ROOT.glob('docs/**/*.md')))
CONFIG_PAGES = tuple(sorted(str(p.relative_to(ROOT)) for p in ROOT.glob('configs/**/README.md')))

EXECUTED = ('sh', 'python')
SHOWN = ('text', 'json', 'cpp')
"""Languages of blocks without commands; tests/export/test_deploy.py compiles the C++."""

_BLOCK = re.compile(r'^```([^\n]*)\n(.*?)^```$', flags=re.DOTALL | re.MULTILINE)
_INLINE = re.compile(r'(?<!`)`([^`]+)`(?!`)')
_COMMAND = re.compile(r'(?:\w+=\S+ )*(?:nat-mm|python|pip|mim|make|tools/\w+\.sh) ')
_PLACEHOLDER = re.compile(r'[A-Z_]+|\.\.\.|\[.*')


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, title and content, and the line where it begins."""

    page: str
    line: int
    language: str
    title: str | None
    text: str

    def commands(self) -> list[str]:
        """Returns the commands of a shell block, each on one line, without comments."""
        joined = re.sub(r'\\\n\s*', '', self.text)
        lines = (re.sub(r'(^|\s)#.*', '', line).strip() for line in joined.splitlines())
        return [line for line in lines if line]


def read_blocks(page: str) -> list[Block]:
    """Returns the fenced blocks of a page in order."""
    text = (ROOT / page).read_text()
    blocks = []
    for match in _BLOCK.finditer(text):
        language, _, rest = match[1].strip().partition(' ')
        title = re.fullmatch(r'title="(.+)"', rest)
        line = text.count('\n', 0, match.start()) + 1
        blocks.append(Block(page, line, language, title and title[1], match[2]))
    return blocks


def shell_commands(pages: tuple[str, ...]) -> list[str]:
    """Returns all commands in the shell blocks of pages."""
    blocks = [block for page in pages for block in read_blocks(page) if block.language == 'sh']
    return [command for block in blocks for command in block.commands()]


def inline_commands(page: str) -> Iterator[list[str]]:
    """Yields the words of every command within the text of a page, up to the first placeholder."""
    text = _BLOCK.sub('', (ROOT / page).read_text())
    for match in _INLINE.finditer(text):
        command = ' '.join(match[1].split())
        if _COMMAND.match(command):
            words = shlex.split(command)
            ends = [i for i, word in enumerate(words) if _PLACEHOLDER.fullmatch(word)]
            yield words[: min(ends, default=len(words))]
