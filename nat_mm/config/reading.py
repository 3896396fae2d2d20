"""Reads config files, and distinguishes mistakes in them from bugs in the program."""

import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.utils import import_modules_from_strings

from nat_mm.config.building import BadArgumentError, UnknownTypeError, tell_mistakes_apart
from nat_mm.config.dataset_classes import apply_dataset_classes
from nat_mm.config.failures import describe_failure, is_due_to_config
from nat_mm.config.objects import type_name, walk_dicts
from nat_mm.config.zoo import find_config
from nat_mm.errors import CheckpointError, UserError, brief, describe_error

FRAMEWORKS = ('mmdet', 'mmseg', 'mmpretrain')


def load_config(
    source: str | Path, *, overrides: dict[str, Any] | None = None, work_dir: str | None = None
) -> Config:
    """Reads a config, imports what it asks for and settles its classes and work directory.

    Args:
        source: Config file, ``package::path`` or a name in the model zoo; see `find_config`.
        overrides: Values of ``--cfg-options``, keyed by dotted name.
        work_dir: Value of ``--work-dir``. Defaults to the config's own ``work_dir``, or else to
            ``work_dirs/<name of the config>``.

    Returns:
        The config.

    Raises:
        UserError: The file is missing, cannot be parsed, belongs to none of `FRAMEWORKS`,
            imports something that cannot be imported, its ``dataset_classes`` cannot be applied,
            or an override does not apply to it.
    """
    path = str(find_config(source))
    try:
        config = Config.fromfile(path, import_custom_modules=False)
    except Exception as error:
        raise UserError(_explain_parse_error(path, error)) from error
    apply_overrides(config, overrides or {})
    framework = config.get('default_scope')
    if framework not in FRAMEWORKS:
        raise UserError(f'{path}: default_scope must be one of {FRAMEWORKS}, got {framework!r}')
    custom_imports = config.get('custom_imports') or {'imports': []}
    if not _names_modules(custom_imports):
        raise UserError(
            f"{path}: custom_imports must be like dict(imports=['my_package']), got "
            f'{brief(custom_imports)}'
        )
    try:
        import_modules_from_strings(**custom_imports)
    except ImportError as error:
        raise UserError(f'{path}: {error}: {error.__context__}') from error
    init_default_scope(framework)
    apply_dataset_classes(config)

    config.work_dir = work_dir or config.get('work_dir') or str(Path('work_dirs', Path(path).stem))
    return config


def _names_modules(custom_imports: Any) -> bool:
    """Whether mmengine accepts the value of ``custom_imports``, whatever the modules do."""
    if not isinstance(custom_imports, dict) or 'imports' not in custom_imports:
        return False
    imports = custom_imports['imports'] or []
    names = [imports] if isinstance(imports, str) else imports
    is_list = isinstance(names, list) and all(isinstance(each, str) for each in names)
    return is_list and custom_imports.keys() <= {'imports', 'allow_failed_imports'}


def apply_overrides(config: Config, overrides: dict[str, Any]) -> None:
    """Overrides values of a config.

    Args:
        config: The config.
        overrides: Values by dotted name, such as ``model.backbone.with_cp``.

    Raises:
        UserError: If they do not apply to the config.
    """
    try:
        config.merge_from_dict(overrides)
    except (TypeError, KeyError, AttributeError) as error:
        raise UserError(
            f'the overrides (--cfg-options) {overrides} do not fit {config.filename}: {error}'
        ) from error


def _explain_parse_error(path: str, error: Exception) -> str:
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if os.path.abspath(frame.filename) == os.path.abspath(path)
    ]
    place = f'{path}, line {lines[-1]}' if lines else path
    return f'cannot read config {place}: {describe_error(error)}'


@contextmanager
def config_mistakes(config: Config) -> Iterator[None]:
    """Converts exceptions that a wrong config causes while objects are built from it.

    These are a type that is not registered, an argument that is missing or unknown to a
    constructor, and any ValueError, TypeError, KeyError or AssertionError, by which constructors
    refuse a value or stumble over it; also other exceptions, such as that of a missing file, for
    which `is_due_to_config` is true. All others propagate.

    Args:
        config: Config from which objects are built inside the ``with`` block.

    Raises:
        UserError: The config is wrong.
    """
    try:
        with tell_mistakes_apart():
            yield
    except UserError:
        raise
    except CheckpointError as error:
        raise UserError(f'{config.filename}: {error}') from error
    except UnknownTypeError as error:
        raise UserError(f'{config.filename}: {error.args[0]}') from error
    except BadArgumentError as error:
        place = error.argument and _find_key(config.to_dict(), error.argument, error.kind)
        raise UserError(f'{config.filename}: {place or ""}{error}') from error
    except Exception as error:
        refusals = ValueError, TypeError, KeyError, AssertionError
        if not isinstance(error, refusals) and not is_due_to_config(error):
            raise
        text = describe_failure(config.to_dict(), error)
        raise UserError(f'{config.filename}: {text}') from error


def _find_key(config: dict[str, Any], key: str, kind: str | None) -> str | None:
    """Finds where a config has a key next to that ``type``, such as ``model.backbone.``."""
    for path, part in walk_dicts(config):
        if key in part and type_name(part) == kind:
            return f'{path}.' if path else ''
    return None
