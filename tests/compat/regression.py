"""A training run that takes milliseconds."""

import torch
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch.utils.data import DataLoader


class Regression(BaseModel):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(3, 1)

    def forward(self, inputs, mode='tensor'):
        loss = self.linear(inputs).square().mean()
        return {'loss': loss} if mode == 'loss' else [{}]


def train(work_dir, epochs, name, *, runner_type=Runner, **options):
    """Trains for some epochs of 4 iterations; ``options`` go to the runner."""
    torch.manual_seed(0)
    runner = runner_type(
        model=Regression(),
        work_dir=str(work_dir),
        train_dataloader=DataLoader(torch.randn(8, 3), batch_size=2, collate_fn=stack),
        train_cfg={'by_epoch': True, 'max_epochs': epochs},
        optim_wrapper={'optimizer': {'type': 'AdamW', 'lr': 0.01}},
        param_scheduler={'type': 'CosineAnnealingLR', 'T_max': 4, 'end': 4},
        # mmengine's FlexibleRunner cannot load the averages of EMAHook.
        custom_hooks=[{'type': 'EMAHook'}] if runner_type is Runner else None,
        default_scope='mmengine',
        experiment_name=name,
        **options,
    )
    runner.train()
    return runner


def resume(path, work_dir, *, runner_type=Runner, **options):
    """Resumes from a checkpoint and trains to the end of the third epoch."""
    return train(
        work_dir, 3, str(path), runner_type=runner_type, load_from=str(path), resume=True, **options
    )


def stack(samples):
    return {'inputs': torch.stack(samples)}
