"""Writes the model zoo: model-index.yml, the metafiles, docs/model_zoo.md and the configs' READMEs.

    python docs/model_zoo.py            # writes them
    python docs/model_zoo.py --check    # writes nothing; exit code 2 if one of them is out of date

All of it comes from tests/data/published_experiments.json, the facts that the tests compare the
configs with.
"""

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
FACTS = Path('tests/data/published_experiments.json')
PAGE = Path('docs/model_zoo.md')
ORIGIN = f'Written by docs/model_zoo.py from {FACTS}: change those, not this file.'
NOTICE = """\
All results and weights are those of the papers' authors; nobody has trained these models again with
this project. The numbers of parameters and of FLOPs (multiply-adds of the whole model for one image
of the given height and width) are the authors' too."""
USE = """\
`mim` has the same figures where the package is installed (without `-e`):

```sh
mim search nat_mm --model dinat --condition 'box_ap>53' --field box_ap parameters
mim download nat_mm --config mask_rcnn_dinat_mini_3x_coco --dest models
```

The Mask2Former models, whose released weights fit detectron2 only, have pages of their own:
[COCO](../configs/detection/mask2former/README.md) and
[ADE20K](../configs/segmentation/mask2former/README.md)."""
PAPERS = {
    'NAT': ('Neighborhood Attention Transformer', 'https://arxiv.org/abs/2204.07143'),
    'DiNAT': ('Dilated Neighborhood Attention Transformer', 'https://arxiv.org/abs/2209.15001'),
    'DiNAT_s': ('Dilated Neighborhood Attention Transformer', 'https://arxiv.org/abs/2209.15001'),
}


@dataclass(frozen=True)
class Metric:
    """A kind of result: its key in the facts, OpenMMLab's task and name, a table's heading."""

    key: str
    task: str
    name: str
    heading: str


@dataclass(frozen=True)
class Task:
    """A folder of configs: what to call its models, where they were tested, and by what."""

    models: str
    title: str
    dataset: str
    metrics: Sequence[Metric]


TASKS = {
    'detection': Task(
        models='detectors',
        title='Object detection and instance segmentation on COCO',
        dataset='COCO',
        metrics=[
            Metric('box_AP', 'Object Detection', 'box AP', 'Box AP'),
            Metric('mask_AP', 'Instance Segmentation', 'mask AP', 'Mask AP'),
        ],
    ),
    'segmentation': Task(
        models='segmenters',
        title='Semantic segmentation on ADE20K',
        dataset='ADE20K',
        metrics=[
            Metric('mIoU', 'Semantic Segmentation', 'mIoU', 'mIoU'),
            Metric('mIoU_multiscale', 'Semantic Segmentation', 'mIoU(ms+flip)', 'Multi-scale mIoU'),
        ],
    ),
    'classification': Task(
        models='classifiers',
        title='Image classification on ImageNet-1k',
        dataset='ImageNet-1k',
        metrics=[Metric('top1', 'Image Classification', 'Top 1 Accuracy', 'Top-1 accuracy')],
    ),
}


@dataclass(frozen=True)
class Model:
    """A published model.

    Attributes:
        architecture: the backbone and, of a detector or segmenter, the method.
        training: OpenMMLab's metadata on the training.
        parameters: their number.
        flops: multiply-adds for an image of ``image`` (height, width).
        results: a value for each metric of the task, by key.
        weights: URL of the whole model.
        pretrained: URL of what the training started from; None for random weights.
    """

    name: str
    task: str
    family: str
    architecture: Sequence[str]
    training: dict[str, str | int | list[str]]
    parameters: int
    flops: int
    image: Sequence[int]
    results: dict[str, float]
    weights: str
    pretrained: str | None

    @property
    def folder(self) -> Path:
        return Path('configs', self.task, self.family.lower())

    @property
    def config(self) -> Path:
        return self.folder / f'{self.name}.py'

    @property
    def image_size(self) -> str:
        return '{}x{}'.format(*self.image)


def read_models(root: Path) -> list[Model]:
    """The models by task and family, otherwise in the order of the facts."""
    facts = json.loads((root / FACTS).read_text())
    models = [read_experiment(each) for each in facts['experiments']]
    models += [read_classifier(each) for each in facts['imagenet_backbones']]
    tasks, families = list(TASKS), list(PAPERS)
    models.sort(key=lambda model: (tasks.index(model.task), families.index(model.family)))
    return models


def read_experiment(facts: dict) -> Model:
    """A detector or segmenter."""
    task, published = TASKS[facts['task']], facts['published']
    size = facts['name'].partition(f'_{facts["backbone"].lower()}_')[2].partition('_')[0]
    is_by_epoch = 'max_epochs' in facts
    length = {'Epochs': facts['max_epochs']} if is_by_epoch else {'Iterations': facts['max_iters']}
    techniques = [facts['optimizer']['type'], *(['Mixed Precision'] if facts['amp'] else [])]
    return Model(
        name=facts['name'],
        task=facts['task'],
        family=facts['backbone'],
        architecture=[f'{facts["backbone"]}-{size.title()}', facts['method']],
        training={'Training Data': task.dataset, **length, 'Training Techniques': techniques},
        parameters=round(published['params_M'] * 1e6),
        flops=round(published['flops_G'] * 1e9),
        image=facts['flops_input'],
        results={metric.key: published[metric.key] for metric in task.metrics},
        weights=published['checkpoint'],
        pretrained=facts['pretrained'],
    )


def read_classifier(facts: dict) -> Model:
    """An ImageNet classifier; its config's name is made here."""
    family, _, size = facts['name'].partition('-')
    data = ['ImageNet-22k', 'ImageNet-1k'] if facts['pretraining'] else ['ImageNet-1k']
    parts = [family, size, *(each.replace('ImageNet-', 'in') for each in data)]
    parts.append(str(facts['resolution']))
    if facts['kernel_size'] != 7:
        parts.append('{0}x{0}'.format(facts['kernel_size']))
    return Model(
        name='_'.join(parts).lower(),
        task='classification',
        family=family,
        architecture=[facts['name']],
        training={'Training Data': data},
        parameters=round(facts['params_M'] * 1e6),
        flops=round(facts['flops_G'] * 1e9),
        image=[facts['resolution'], facts['resolution']],
        results={'top1': facts['top1']},
        weights=facts.get('renamed', facts['checkpoint']),
        pretrained=facts['pretraining'],
    )


def write_metafile(models: Sequence[Model]) -> str:
    """The metafile of one config folder."""
    return write_yaml({'Models': [describe(model) for model in models]})


def describe(model: Model) -> dict:
    """A model as OpenMMLab's metafiles have it."""
    results = []
    for task, metrics in groupby(TASKS[model.task].metrics, key=lambda metric: metric.task):
        values = {metric.name: model.results[metric.key] for metric in metrics}
        results.append({'Task': task, 'Dataset': TASKS[model.task].dataset, 'Metrics': values})
    return {
        'Name': model.name,
        'In Collection': model.family,
        'Config': str(model.config),
        'Metadata': {
            'Architecture': list(model.architecture),
            **model.training,
            'Parameters': model.parameters,
            'FLOPs': model.flops,
            'Input Size': model.image_size,
            'Trained By': f'the authors of {model.family}',
        },
        'Results': results,
        'Weights': model.weights,
    }


def write_index(models: Sequence[Model]) -> str:
    """What ``mim`` and mmengine read first."""
    metafiles = [str(model.folder / 'metafile.yml') for model in models]
    collections = [{'Name': name, 'Paper': url} for name, (_, url) in PAPERS.items()]
    return write_yaml({'Collections': collections, 'Import': list(dict.fromkeys(metafiles))})


def write_yaml(content: dict) -> str:
    return f'# {ORIGIN}\n' + yaml.safe_dump(content, sort_keys=False, width=1000)


def write_page(models: Sequence[Model]) -> str:
    """The table of all models."""
    parts = [f'<!-- {ORIGIN} -->', '# Model zoo', NOTICE, USE]
    for task, group in groupby(models, key=lambda model: model.task):
        parts += [f'## {TASKS[task].title}', write_table(list(group), seen_from=PAGE.parent)]
    return '\n\n'.join(parts) + '\n'


def write_readme(models: Sequence[Model]) -> str:
    """The README of one config folder."""
    first = models[0]
    paper, url = PAPERS[first.family]
    return f"""<!-- {ORIGIN} -->

# {first.family} {TASKS[first.task].models}

{TASKS[first.task].title}, from [{paper}]({url}).

{NOTICE}

{write_table(models, seen_from=first.folder)}

Training, and testing the authors' weights, from the top folder of the repository:

```sh
python tools/train.py {first.config} --work-dir work_dirs/{first.name}
python tools/test.py {first.config} {first.weights}
```
"""


def write_table(models: Sequence[Model], *, seen_from: Path) -> str:
    """A table of models of one task, with links relative to a folder."""
    metrics = TASKS[models[0].task].metrics
    headings = ['Config', *['Backbone', 'Method'][: len(models[0].architecture)], 'Image']
    headings += ['Parameters', 'FLOPs', *(metric.heading for metric in metrics)]
    headings += ['Weights', 'Started from']
    rows = [headings, ['---'] * len(headings)]
    for model in models:
        config = os.path.relpath(model.config, seen_from)
        rows.append([
            f'[{model.name}]({config})',
            *model.architecture,
            model.image_size,
            f'{model.parameters / 1e6:g} M',
            f'{model.flops / 1e9:g} G',
            *(str(model.results[metric.key]) for metric in metrics),
            f'[file]({model.weights})',
            describe_start(model),
        ])  # fmt: skip
    return '\n'.join(f'| {" | ".join(row)} |' for row in rows)


def describe_start(model: Model) -> str:
    if model.pretrained is None:
        return 'random weights'
    data = 'ImageNet-22k' if '/imagenet22k/' in model.pretrained else 'ImageNet-1k'
    return f'[{data}]({model.pretrained})'


def write_all(root: Path) -> dict[Path, str]:
    """The text of each file of the model zoo, by its path below the root."""
    models = read_models(root)
    texts = {Path('model-index.yml'): write_index(models), PAGE: write_page(models)}
    for folder, group in groupby(models, key=lambda model: model.folder):
        in_folder = list(group)
        texts[folder / 'metafile.yml'] = write_metafile(in_folder)
        texts[folder / 'README.md'] = write_readme(in_folder)
    return texts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--check', action='store_true', help='write nothing, see what would change')
    arguments = parser.parse_args()
    texts = write_all(ROOT)
    old = {path: (ROOT / path).read_text() if (ROOT / path).exists() else None for path in texts}
    changed = [path for path, text in texts.items() if text != old[path]]
    if arguments.check and changed:
        names = ', '.join(map(str, changed))
        parser.exit(2, f'out of date, run python docs/model_zoo.py: {names}\n')
    for path in changed:
        (ROOT / path).write_text(texts[path])
        print(f'wrote {path}')


if __name__ == '__main__':
    main()
