"""Training runs of a model with 20 weights, which take milliseconds."""

import itertools

import torch
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, HOOKS, METRICS, MODELS
from mmengine.runner import Runner

from tests.loading import forget_visualizers

_numbers = itertools.count()
BATCHES = 3
"""Batches per epoch."""


@DATASETS.register_module()
class TinyData(torch.utils.data.Dataset):
    """Vectors; ``shown`` collects the indices that were loaded in this process."""

    shown = []

    def __init__(self, length=BATCHES):
        self.length = length

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        self.shown.append(index)
        return dict(inputs=torch.arange(4.0) + index)


@MODELS.register_module()
class TinyModel(BaseModel):
    """A linear layer with two losses; ``ballast`` is the number of unused values in a buffer."""

    def __init__(self, ballast=0):
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(4, 4)
        self.register_buffer('ballast', torch.zeros(ballast))

    def forward(self, inputs, mode='tensor'):
        output = self.layer(inputs)
        if mode != 'loss':
            return [output]
        losses = {'loss_cls': (output - 1).square().mean(), 'loss_bbox': output.abs().mean()}
        return {**losses, 'accuracy': torch.tensor(float('nan'))}


@METRICS.register_module()
class TinyScore(BaseMetric):
    """A metric that rises with every validation."""

    rounds = 0

    def process(self, data_batch, data_samples):
        self.results.append(1)

    def compute_metrics(self, results):
        type(self).rounds += 1
        return {'score': self.rounds}


@HOOKS.register_module()
class Calls(Hook):
    """Calls ``functions``, keyed by the place and the number of iterations done there."""

    priority = 'VERY_LOW'
    functions = {}

    def _call(self, place, done):
        function = self.functions.get((place, done))
        if function:
            function()

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self._call('before', runner.iter)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self._call('after', runner.iter + 1)

    def after_val_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self._call('validation', runner.iter)


def tiny_config(work_dir, *, by_epoch=False, end=3, checkpoint=None, validate=False, **options):
    """Makes the config of a training run.

    Args:
        work_dir: Work directory.
        by_epoch: Whether to count epochs of 3 batches rather than iterations.
        end: Number of epochs or iterations.
        checkpoint: Arguments of CheckpointHook; by default it keeps one checkpoint, the last.
        validate: Whether to validate after each epoch or iteration.
        options: More settings of the config.
    """
    loader = dict(
        dataset=dict(type='TinyData'),
        batch_size=1,
        num_workers=0,
        sampler=dict(type='DefaultSampler' if by_epoch else 'InfiniteSampler', shuffle=True),
        collate_fn=dict(type='default_collate'),
    )
    hook = dict(interval=1, by_epoch=by_epoch, max_keep_ckpts=1)
    hook = dict(type='CheckpointHook', **{**hook, **(checkpoint or {})})
    validation = dict(
        val_dataloader={**loader, 'sampler': dict(type='DefaultSampler', shuffle=False)},
        val_cfg=dict(),
        val_evaluator=dict(type='TinyScore'),
    )
    length = dict(max_epochs=end) if by_epoch else dict(max_iters=end)
    return Config(
        {
            'default_scope': 'mmengine',
            'model': dict(type='TinyModel'),
            'work_dir': str(work_dir),
            'train_dataloader': loader,
            'train_cfg': dict(by_epoch=by_epoch, val_interval=1, **length),
            'optim_wrapper': dict(optimizer=dict(type='Adam', lr=0.1)),
            'param_scheduler': [
                dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=5),
                dict(type='MultiStepLR', by_epoch=by_epoch, milestones=[1], gamma=0.5),
            ],
            'default_hooks': dict(checkpoint=hook),
            'custom_hooks': [dict(type='Calls')],
            'randomness': dict(seed=0),
            # Runs that start in the same second would share their message hub.
            'experiment_name': f'tiny_{next(_numbers)}',
            **(validation if validate else {}),
            **options,
        }
    )


def build_tiny(work_dir, *, overrides=None, **options):
    """Builds the runner of a training run."""
    forget_visualizers()
    config = tiny_config(work_dir, **options)
    config.merge_from_dict(overrides or {})
    return Runner.from_cfg(config)


def train_tiny(work_dir, **options):
    """Trains and returns the runner."""
    runner = build_tiny(work_dir, **options)
    runner.train()
    return runner
