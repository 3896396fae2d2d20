"""Griffe extension that turns Sphinx roles in docstrings into links to the API reference."""

import re

import griffe

ROLE = re.compile(r':(?:class|func|meth|mod|data|attr):`(~?)([\w.]+)`')


def _link(match: re.Match) -> str:
    path = match[2]
    shown = path.rpartition('.')[2] if match[1] else path
    return f'[`{shown}`][{path}]' if path.startswith('nat_mm.') else f'`{shown}`'


class SphinxRoles(griffe.Extension):
    """Converts roles such as ``:func:`name` `` to Markdown."""

    def on_object(self, *, obj: griffe.Object, **kwargs) -> None:
        if obj.docstring is not None:
            obj.docstring.value = ROLE.sub(_link, obj.docstring.value)
