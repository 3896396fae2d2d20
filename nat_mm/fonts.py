"""Finds fonts that have the characters of class names in any language."""

import functools
import re
import warnings
from pathlib import Path

from matplotlib import font_manager, get_data_path
from matplotlib.ft2font import FT2Font
from matplotlib.text import Text

USUAL_FONT = Path(get_data_path(), 'fonts/ttf/DejaVuSans.ttf')
"""Comes with matplotlib; covers the alphabets of Europe, but not Chinese, Japanese or Korean."""

_WORSE_STYLES = ('bold', 'italic', 'oblique', 'light', 'thin', 'black', 'serif', 'mono')


@functools.cache
def find_font(text: str) -> Path:
    """Finds a font on this computer that has the characters of a text.

    Args:
        text: Text to be written.

    Returns:
        Matplotlib's own font if it has all of them, otherwise the font with most of them.
    """
    wanted = {ord(character) for character in text}
    best, best_count = USUAL_FONT, len(wanted & _characters(USUAL_FONT))
    if best_count == len(wanted):
        return best
    for path in _installed_fonts():
        count = len(wanted & _characters(path))
        if count > best_count:
            best, best_count = path, count
        if best_count == len(wanted):
            break
    return best


@functools.cache
def writable(text: str) -> str:
    r"""Replaces characters that no installed font has with codes such as ``\u732b``, and warns.

    Args:
        text: Text to be written, in the font from `find_font`.
    """
    text = re.sub(r'\s', ' ', text)
    known = _characters(find_font(text))
    missing = {character for character in text if ord(character) not in known}
    if missing:
        warnings.warn(
            f'no installed font has {"".join(sorted(missing))!a} of {text!a}: codes are drawn '
            'instead. Install a font of the language, such as the package fonts-noto-cjk',
            stacklevel=2,
        )
    return ''.join(ascii(each)[1:-1] if each in missing else each for each in text)


def write_plainly(*texts: Text) -> None:
    """Makes matplotlib draw texts literally.

    Otherwise, it renders text between dollar signs as a formula, fails if that is not valid, and
    draws boxes for characters that its own font lacks.

    Args:
        *texts: Titles, labels and legend entries.
    """
    for text in texts:
        content = text.get_text()
        font = find_font(content)
        text.set_text(writable(content))
        text.set_parse_math(False)
        if font != USUAL_FONT:
            properties = text.get_fontproperties().copy()
            properties.set_file(font)
            text.set_fontproperties(properties)


@functools.cache
def _characters(path: Path) -> frozenset[int]:
    try:
        return frozenset(FT2Font(str(path)).get_charmap())
    except (OSError, RuntimeError):
        return frozenset()  # a font that FreeType cannot read


@functools.cache
def _installed_fonts() -> list[Path]:
    """Lists the installed fonts, plain styles first."""
    # Matplotlib's own list lacks fonts that were installed after it was made.
    paths = [Path(path) for path in font_manager.findSystemFonts()]
    # LastResort draws a box for every character.
    return sorted(
        (path for path in paths if 'lastresort' not in path.name.lower()),
        key=lambda path: (_style_faults(path.stem.lower()), path.name),
    )


def _style_faults(name: str) -> int:
    return sum(style in name for style in _WORSE_STYLES)
