"""Publishes models on the Hugging Face Hub; ``hf://owner/name`` loads them from there."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType

import torch
from mmengine.config import Config

from nat_mm import __version__
from nat_mm.checkpoints import convert_checkpoint
from nat_mm.checkpoints.hub import PREFIX, USUAL_FILES, HubAddress, import_hub
from nat_mm.config.datasets import find_test_dataset
from nat_mm.config.objects import type_name
from nat_mm.errors import UserError, one_line
from nat_mm.inference.load_model import load_model
from nat_mm.inference.model import Model

HUB_TASKS = {
    'detection': 'object-detection',
    'segmentation': 'image-segmentation',
    'classification': 'image-classification',
}
"""The Hub's names for our tasks."""

_LOCAL_SETTINGS = ('work_dir', 'load_from', 'resume', 'launcher')


def push_to_hub(
    model: Model | str | Path,
    repository: str,
    *,
    config: str | Path | Config | None = None,
    metrics: Mapping[str, float] | None = None,
    dataset: str | None = None,
    license: str | None = None,
    private: bool = False,
    revision: str | None = None,
    message: str = 'Upload a model of nat_mm',
    token: str | None = None,
) -> str:
    """Uploads a model: its weights as safetensors, its config, and a model card.

    The repository is created if it does not exist. All files are uploaded in one commit, which
    replaces files with the same names. The config is uploaded without settings that concern only
    this machine (``work_dir``, ``load_from``, ``resume``, ``launcher``), but with its data paths.

    Args:
        model: Result of `nat_mm.load_model`, or a checkpoint: a path, URL or ``hf://`` address.
        repository: ``owner/name``.
        config: For a checkpoint, its config file or name in the model zoo, as for `load_model`.
        metrics: Results by name for the card, such as ``{'coco/bbox_mAP': 0.467}``.
        dataset: Dataset of the metrics; defaults to the type of the config's test dataset.
        license: Identifier on the Hub, such as ``mit``; None if no license is stated.
        private: Whether a new repository is private.
        revision: Branch to upload to; defaults to the main branch.
        message: Commit message.
        token: Access token; defaults to that of ``hf auth login`` or HF_TOKEN.

    Returns:
        The address to load the model from, ``hf://owner/name`` or ``hf://owner/name@revision``.

    Raises:
        UserError: If model and config do not match, or the upload is not possible.
        CheckpointError: If huggingface_hub is not installed.
    """
    if not isinstance(model, Model):
        if config is None:
            raise UserError(f'give the config of {model}, too: push_to_hub(..., config=...)')
        model = load_model(config, str(model), device='cpu')
    elif config is not None:
        raise UserError('a loaded model has a config of its own: leave config out')
    address = str(HubAddress(repository, revision))
    hub = import_hub(address)
    with TemporaryDirectory() as folder, _upload_mistakes(hub, repository):
        hub.utils.validate_repo_id(repository)
        card = write_card(model, address, metrics=metrics or {}, dataset=dataset, license=license)
        Path(folder, 'README.md').write_text(card, encoding='utf-8')
        _write_config(model.config, Path(folder, 'config.py'))
        _write_weights(model, Path(folder, USUAL_FILES[0]))
        api = hub.HfApi(token=token)
        api.create_repo(repository, private=private, exist_ok=True)
        if revision:
            api.create_branch(repository, branch=revision, exist_ok=True)
        api.upload_folder(
            repo_id=repository,
            folder_path=folder,
            revision=revision,
            commit_message=message,
        )
    return address


def write_card(
    model: Model,
    address: str,
    *,
    metrics: Mapping[str, float],
    dataset: str | None,
    license: str | None,
) -> str:
    """Writes the model card: metadata for the Hub's search, results, and how to load the model.

    Args:
        model: The model.
        address: Where the model will be, ``hf://owner/name``.
        metrics: Results by name.
        dataset: Dataset of the metrics; None for the type of the config's test dataset.
        license: Identifier on the Hub, or None.

    Returns:
        The text of README.md.
    """
    hub = import_hub(address)
    dataset = dataset or type_name(find_test_dataset(model.config), 'unknown')
    family = type(getattr(model.module, 'backbone', model.module)).__name__
    kind = f'{type(model.module).__name__} with a {family} backbone'
    name = address.removeprefix(PREFIX).partition('/')[2].partition('@')[0]
    data = hub.ModelCardData(
        library_name='nat_mm',
        pipeline_tag=HUB_TASKS[model.task],
        license=license,
        tags=['nat_mm', 'neighborhood-attention', family.lower(), model.scope],
        model_name=name,
        eval_results=[
            hub.EvalResult(
                task_type=HUB_TASKS[model.task],
                dataset_type=_identifier(dataset),
                dataset_name=dataset,
                metric_type=_identifier(metric),
                metric_name=metric,
                metric_value=float(value),
            )
            for metric, value in metrics.items()
        ]
        or None,
    )
    parts = [
        f'---\n{data.to_yaml()}\n---',
        f'# {name}',
        f'{kind}, for {model.task}, made with nat_mm {__version__} and {model.scope}. '
        f'It knows {len(model.classes)} classes.',
    ]
    if metrics:
        rows = [f'| {metric} | {value:g} |' for metric, value in metrics.items()]
        parts.append('\n'.join([f'| On {dataset} | |', '| --- | --: |', *rows]))
    parts += [
        '## Use',
        'The config is a Python program: read `config.py` of this repository before you use it.',
        '```python\n'
        'import nat_mm\n\n'
        f"model = nat_mm.load_model('config.py', '{address}')\n"
        "model.predict('image.jpg').save('out.jpg')\n"
        '```',
        'To fine-tune it, set `load_from` in your config:',
        f"```python\nload_from = '{address}'\n```",
        '## License',
        f'{license}.' if license else 'Whoever uploaded this model stated no license.',
    ]
    return '\n\n'.join(parts) + '\n'


def _write_config(config: Config, path: Path) -> None:
    shared = {name: value for name, value in config.items() if name not in _LOCAL_SETTINGS}
    Config(shared).dump(path)


def _write_weights(model: Model, path: Path) -> None:
    with TemporaryDirectory(dir=path.parent, prefix='.') as folder:
        whole = Path(folder, 'model.pth')
        classes = {'classes': model.classes, 'palette': [list(color) for color in model.palette]}
        state_dict = {key: value.cpu() for key, value in model.module.state_dict().items()}
        torch.save({'meta': {'dataset_meta': classes}, 'state_dict': state_dict}, whole)
        convert_checkpoint(str(whole), str(path))


def _identifier(name: str) -> str:
    return re.sub(r'\W+', '-', name).strip('-').lower()


@contextmanager
def _upload_mistakes(hub: ModuleType, repository: str) -> Iterator[None]:
    """Turns exceptions of an upload into one-line errors."""
    try:
        yield
    except hub.errors.HFValidationError as error:
        raise UserError(f'{repository!r} must be owner/name: {one_line(error)}') from error
    except (hub.errors.HfHubHTTPError, hub.errors.LocalTokenNotFoundError) as error:
        response = getattr(error, 'response', None)
        if response is None or response.status_code in (401, 403):
            raise UserError(
                f'{repository}: {hub.constants.ENDPOINT} does not let you write there. Run '
                'hf auth login, or set HF_TOKEN to a token that may write'
            ) from error
        raise UserError(f'{repository} was not uploaded: {one_line(error)}') from error
    except Exception as error:
        is_offline = isinstance(error, hub.errors.OfflineModeIsEnabled)
        if not is_offline and not type(error).__module__.startswith('httpx'):
            raise
        raise UserError(f'{repository} was not uploaded: {one_line(error)}') from error
