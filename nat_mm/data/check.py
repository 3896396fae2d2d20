"""Finds problems with a config and its data before a training run."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain

from mmengine.config import Config

from nat_mm.config.datasets import SPLITS
from nat_mm.data.class_counts import find_class_count_problems
from nat_mm.data.coco import check_coco
from nat_mm.data.findings import Finding
from nat_mm.data.folders import find_folder_problems
from nat_mm.data.ground_truth import find_missing_ground_truth
from nat_mm.data.label_images import find_label_image_problems
from nat_mm.data.listed_images import find_problems_of_other_lists
from nat_mm.data.loaders import find_loader_problems
from nat_mm.data.model_fit import find_model_problems
from nat_mm.data.palettes import find_palette_problems
from nat_mm.data.paths import describe_path_problem, find_path_problems
from nat_mm.data.progress import Progress, no_progress
from nat_mm.data.setting_values import find_wrong_settings
from nat_mm.data.sources import DataSource, find_sources
from nat_mm.data.summaries import Summary, summarize_samples
from nat_mm.data.training_settings import find_setting_problems
from nat_mm.errors import UserError, describe_error


@dataclass(frozen=True)
class Report:
    """The result of a check.

    Attributes:
        summaries: What each dataset contains.
        findings: What is wrong.
    """

    summaries: Sequence[Summary]
    findings: Sequence[Finding]

    @property
    def errors(self) -> list[Finding]:
        """Findings that would make training fail, or learn something other than intended."""
        return [each for each in self.findings if each.is_error]

    @property
    def warnings(self) -> list[Finding]:
        """Findings that may be intended."""
        return [each for each in self.findings if not each.is_error]


def check_config(
    config: Config,
    *,
    splits: Sequence[str] = SPLITS,
    thorough: bool = False,
    files: bool = True,
    summarize: bool = False,
    progress: Progress = no_progress,
) -> Report:
    """Checks a config and the data that it names, before a run spends time on them.

    Whether the parts of the model fit together is checked along with the ``train`` split.

    Args:
        config: Config of the run.
        splits: Which splits of the data to check: ``train``, ``val``, ``test``.
        thorough: Whether to read all files completely where otherwise a sample is read.
        files: Whether to check image files, and not only annotations.
        summarize: Whether to also summarize datasets that have to be loaded for that.
        progress: Called every now and then.

    Returns:
        What was found.
    """
    summaries: list[Summary] = []
    findings: list[Finding] = []
    sources: dict[str, list[DataSource]] = {}
    for split in splits:
        findings += find_path_problems(config, split)
        sources[split] = []
        try:
            sources[split] = find_sources(config, split)
        except UserError as error:
            findings.append(Finding(str(error)))
    # Missing paths have been reported already.
    present = {
        split: [
            source for source in each if not describe_path_problem(source.config, config, split)
        ]
        for split, each in sources.items()
    }
    # Each is a generator, and so checks nothing yet.
    checks: dict[str, Iterator[Finding | Summary]] = {
        'annotations': check_coco(config, present, images=files, progress=progress),
    }
    for split, each in present.items():
        checks[f'{split}_dataloader'] = find_loader_problems(config, each)
        checks[f'ground truth of {split}'] = find_missing_ground_truth(config, split, each)
    if files:
        # First, as it loads datasets that find their classes in their files.
        checks['images'] = find_problems_of_other_lists(config, present, progress)
    has_model = config.get('model') is not None
    if has_model:
        checks['folders of classes'] = find_folder_problems(config, present)
        checks['numbers of classes'] = find_class_count_problems(config, sources)
    else:
        findings.append(Finding(f'{config.filename} has no model'))
    if has_model and 'train' in splits:
        # Parts that do not fit fail or stay untrained in training; they do not affect test results.
        checks['settings'] = chain(find_wrong_settings(config), find_setting_problems(config))
        checks['palettes'] = find_palette_problems(config)
        checks['model'] = find_model_problems(config, sources=present['train'])
    if has_model and files:
        checks['label images'] = _check_label_images(config, present, thorough)
    if summarize:
        checks['samples'] = _count_samples(present)
    for name, check in checks.items():
        try:
            for found in check:
                (summaries if isinstance(found, Summary) else findings).append(found)
        # Users' data can be unlike anything a check expects, which is no reason not to train.
        except Exception as error:
            findings.append(
                Finding(
                    f'{name} could not be checked completely: {describe_error(error)}',
                    is_error=False,
                )
            )
    # Report a file used for both training and testing once.
    return Report(summaries, list(dict.fromkeys(findings)))


def _count_samples(sources: Mapping[str, Sequence[DataSource]]) -> Iterator[Summary]:
    for each in sources.values():
        for source in each:
            if not source.is_coco:
                with suppress(Exception):  # the other checks report what is wrong
                    yield summarize_samples(source, source.place)


def _check_label_images(
    config: Config, sources: Mapping[str, Sequence[DataSource]], thorough: bool
) -> Iterator[Finding]:
    for each in sources.values():
        for source in each:
            yield from find_label_image_problems(source, config=config, thorough=thorough)


def summarize_errors(report: Report, config: Config) -> str:
    """Returns the first error in one line, and the number of others.

    Args:
        report: A report with errors.
        config: The config that was checked.
    """
    first, *others = report.errors
    more = f' (and {len(others)} more: nat-mm check {config.filename} lists them)'
    return first.text + (more if others else '')
