"""Writes docs/model_zoo.md and the READMEs of the configs from the metafiles.

    python docs/model_zoo.py            # writes them
    python docs/model_zoo.py --check    # writes nothing; exit code 2 if one of them is out of date

The metafiles (configs/*/*/metafile.yml, listed in model-index.yml) are written by hand. They
contain the published results, weights, parameters and FLOPs.
"""

import argparse
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
PAGE = Path('docs/model_zoo.md')
ORIGIN = '<!-- Written by docs/model_zoo.py from {}: change that, not this file. -->'
NOTICE = """\
Results, weights, parameters and FLOPs are those of the papers' authors. These models have not been
trained with nat_mm."""
USE = """\
`mim` finds the configs by the names in the first column if nat_mm is installed without `-e`:

```sh
mim search nat_mm --model dinat --condition 'box_ap>53' --field box_ap parameters
mim download nat_mm --config mask_rcnn_dinat_mini_3x_coco --dest models
```

Classifiers with a *mirror* are also in the authors' repositories on the Hugging Face Hub.
[Hugging Face](huggingface.md) says when nat_mm downloads them from there.

Detectors and segmentors start from the ImageNet classifiers on this page. The Large models start
from ImageNet-22k weights, which their configs name. [Reproduction](reproduction.md) compares each
config with what was published."""
PAPERS = {
    'NAT': 'Neighborhood Attention Transformer',
    'DiNAT': 'Dilated Neighborhood Attention Transformer',
    'DiNAT_s': 'Dilated Neighborhood Attention Transformer',
}
"""Titles of the papers by collection; model-index.yml has their URLs."""


@dataclass(frozen=True)
class Task:
    """A folder of configs.

    Attributes:
        models: Name for its models.
        title: Heading of its table.
        metrics: Headings of the results by their names in the metafiles.
        has_own_readme: Whether the README of its folder is written by hand.
    """

    models: str
    title: str
    metrics: dict[str, str]
    has_own_readme: bool = False


MASK2FORMER = Task(
    models='Mask2Former',
    title='Mask2Former on COCO, ADE20K and Cityscapes',
    metrics={'PQ': 'PQ', 'mask AP': 'Mask AP', 'mIoU': 'mIoU', 'mIoU(ms+flip)': 'Multi-scale'},
    has_own_readme=True,
)
TASKS = {
    'detection': Task(
        models='detectors',
        title='Object detection and instance segmentation on COCO',
        metrics={'box AP': 'Box AP', 'mask AP': 'Mask AP'},
    ),
    'segmentation': Task(
        models='segmentors',
        title='Semantic segmentation on ADE20K',
        metrics={'mIoU': 'mIoU', 'mIoU(ms+flip)': 'Multi-scale'},
    ),
    'classification': Task(
        models='classifiers',
        title='Image classification on ImageNet-1k',
        metrics={'Top 1 Accuracy': 'Top-1'},
    ),
    'classification/isotropic': Task(
        models='isotropic classifiers',
        title='Image classification on ImageNet-1k with isotropic models',
        metrics={'Top 1 Accuracy': 'Top-1'},
    ),
    'detection/mask2former': MASK2FORMER,
    'segmentation/mask2former': MASK2FORMER,
}
"""Tasks by folder of configs; folders of families without an entry have that of their parent."""


@dataclass(frozen=True)
class Model:
    """A published model.

    Attributes:
        name: Name of its config.
        family: NAT, DiNAT or DiNAT_s.
        config: Path relative to the root.
        parameters: Number of parameters.
        flops: Multiply-adds for an image of ``image`` (height x width).
        results: Values by the names in ``Task.metrics``.
        weights: URL of the whole model.
        mirror: ``hf://`` URL of the same weights, if the authors put them on the Hugging Face Hub.
    """

    name: str
    family: str
    config: Path
    parameters: int
    flops: int
    image: str
    results: dict[str, float]
    weights: str
    mirror: str | None

    @property
    def folder(self) -> Path:
        return self.config.parent

    @property
    def task(self) -> Task:
        parent = self.folder.parent.name
        return TASKS.get(f'{parent}/{self.folder.name}') or TASKS[parent]


def read_index(root: Path) -> dict:
    """Reads model-index.yml: ``Collections`` and the metafiles to ``Import``."""
    return yaml.safe_load((root / 'model-index.yml').read_text())


def read_metafile(path: Path) -> list[Model]:
    """Reads the models of a metafile, in order."""
    models = []
    for entry in yaml.safe_load(path.read_text())['Models']:
        metadata = entry['Metadata']
        models.append(
            Model(
                name=entry['Name'],
                family=entry['In Collection'],
                config=Path(entry['Config']),
                parameters=metadata['Parameters'],
                flops=metadata['FLOPs'],
                image=metadata['Input Size'],
                results={k: v for each in entry['Results'] for k, v in each['Metrics'].items()},
                weights=entry['Weights'],
                mirror=entry.get('Mirror'),
            )
        )
    return models


def write_page(models: Sequence[Model]) -> str:
    """Returns the page with all models."""
    parts = [ORIGIN.format('configs/*/*/metafile.yml'), '# Model zoo', NOTICE, USE]
    for task, group in groupby(models, key=lambda model: model.task):
        parts += [f'## {task.title}', write_table(list(group), seen_from=PAGE.parent)]
    return '\n\n'.join(parts) + '\n'


def write_readme(models: Sequence[Model], paper: str) -> str:
    """Returns the README of one config folder; ``paper`` is a URL."""
    first = models[0]
    return f"""{ORIGIN.format('metafile.yml')}

# {first.family} {first.task.models}

{first.task.title}, from [{PAPERS[first.family]}]({paper}).

{NOTICE}

{write_table(models, seen_from=first.folder)}

To train the first model or test the authors' weights, run in the top folder of the repository:

```sh
nat-mm train {first.config} --work-dir work_dirs/{first.name}
nat-mm test {first.config} {first.weights}
```
"""


def write_table(models: Sequence[Model], *, seen_from: Path) -> str:
    """Returns a table of models of one task, with links relative to a folder.

    It has to fit into the page on a screen that is 1280 pixels wide: few columns, short cells.
    """
    metrics = models[0].task.metrics
    (usual_image, _), *others = Counter(model.image for model in models).most_common()
    rows = [['Config', *metrics.values(), 'Params', 'FLOPs', 'Weights']]
    rows.append(['---', *['--:'] * (len(rows[0]) - 2), '---'])
    for model in models:
        mark = '' if model.image == usual_image else r'\*'
        rows.append([
            f'[{model.name}]({os.path.relpath(model.config, seen_from)})',
            *(str(model.results.get(metric, '')) for metric in metrics),
            f'{model.parameters / 1e6:g} M',
            f'{model.flops / 1e9:g} G{mark}',
            write_links(model),
        ])  # fmt: skip
    table = '\n'.join(f'| {" | ".join(row)} |' for row in rows)
    note = f'FLOPs are multiply-adds of the whole model at {usual_image} (height x width)'
    if others:
        note += rf'; \* at {" or ".join(image for image, _ in others)}'
    return f'{table}\n\n{note}.'


def write_links(model: Model) -> str:
    """Returns links to a model's weights."""
    links = f'[file]({model.weights})'
    if model.mirror is None:
        return links
    return f'{links}, [mirror]({model.mirror.replace("hf://", "https://huggingface.co/")})'


def write_all(root: Path) -> dict[Path, str]:
    """Returns the text of each generated file by its path relative to the root."""
    index = read_index(root)
    papers = {collection['Name']: collection['Paper'] for collection in index['Collections']}
    by_folder = [read_metafile(root / path) for path in index['Import']]
    texts = {
        models[0].folder / 'README.md': write_readme(models, papers[models[0].family])
        for models in by_folder
        if not models[0].task.has_own_readme
    }
    return {PAGE: write_page([model for models in by_folder for model in models]), **texts}


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
