"""Tests a backbone without training a head, by nearest-neighbor classification."""

from collections.abc import Mapping
from typing import Any

import torch
from mmengine.dist import all_gather
from mmengine.evaluator import Evaluator
from mmengine.registry import LOOPS
from mmengine.runner import Runner, TestLoop, autocast
from torch import Tensor, nn
from torch.utils.data import DataLoader

from nat_mm.errors import UserError
from nat_mm.wrappers import unwrap_model


def vote_of_neighbors(
    features: Tensor,
    memory: Tensor,
    labels: Tensor,
    *,
    classes: int,
    neighbors: int = 20,
    temperature: float = 0.07,
) -> Tensor:
    """Classifies by the labels of the most similar vectors, as DINO does (arXiv 2104.14294).

    A neighbor with cosine similarity s votes for its class with weight ``exp(s / temperature)``.

    Args:
        features: Vectors to classify, ``[B, C]``, of unit length.
        memory: Labeled vectors, ``[N, C]``, of unit length.
        labels: Their classes, ``[N]``.
        classes: Number of classes.
        neighbors: How many neighbors vote; at most N do.
        temperature: The smaller, the more the nearest neighbors count.

    Returns:
        The share of each class in the votes, ``[B, classes]``.
    """
    similarities, nearest = (features @ memory.mT).topk(min(neighbors, len(memory)))
    votes = (similarities / temperature).softmax(dim=1)
    return votes.new_zeros(len(features), classes).scatter_add_(1, labels[nearest], votes)


@LOOPS.register_module()
class NearestNeighborTestLoop(TestLoop):
    """Tests a classifier's features by a vote of the nearest training images.

    The features are what the model's head classifies; the head itself is not used.

    Args:
        runner: The runner.
        dataloader: Loads the images to classify.
        evaluator: Metrics of a classifier.
        memory_dataloader: Loads the labeled images, with the test pipeline.
        neighbors: How many neighbors vote.
        temperature: The smaller, the more the nearest neighbors count.
        fp16: Whether the model runs in mixed precision.

    Raises:
        UserError: A value is out of range.
    """

    def __init__(
        self,
        runner: Runner,
        dataloader: DataLoader | dict[str, Any],
        evaluator: Evaluator | dict[str, Any] | list[Any],
        *,
        memory_dataloader: DataLoader | dict[str, Any],
        neighbors: int = 20,
        temperature: float = 0.07,
        fp16: bool = False,
    ) -> None:
        super().__init__(runner, dataloader, evaluator, fp16)
        if not isinstance(neighbors, int) or neighbors < 1:
            raise UserError(f'test_cfg.neighbors must be an integer of 1 or more, got {neighbors}')
        if not temperature > 0:
            raise UserError(f'test_cfg.temperature must be above 0, got {temperature}')
        if not isinstance(memory_dataloader, DataLoader):
            memory_dataloader = runner.build_dataloader(memory_dataloader)
        self.memory_dataloader = memory_dataloader
        self.neighbors = neighbors
        self.temperature = temperature

    def run(self) -> dict[str, float]:
        """Extracts the features of the labeled images, then classifies the test images."""
        self.runner.model.eval()
        batches = [self._extract(batch) for batch in self.memory_dataloader]
        # Every process has a part of the same length, because the sampler pads them.
        self.memory = torch.cat(all_gather(torch.cat([features for features, _ in batches])))
        labels = [each.gt_label for _, samples in batches for each in samples]
        self.labels = torch.cat(all_gather(torch.cat(labels).to(self.memory.device)))
        named = (getattr(self.dataloader.dataset, 'metainfo', None) or {}).get('classes') or ()
        self.classes = max(len(named), int(self.labels.max()) + 1)
        return super().run()

    @torch.no_grad()
    def run_iter(self, idx: int, data_batch: Mapping[str, Any]) -> None:
        """Classifies a batch of images."""
        self.runner.call_hook('before_test_iter', batch_idx=idx, data_batch=data_batch)
        features, samples = self._extract(data_batch)
        scores = vote_of_neighbors(
            features,
            self.memory,
            self.labels,
            classes=self.classes,
            neighbors=self.neighbors,
            temperature=self.temperature,
        )
        for sample, score in zip(samples, scores, strict=True):
            sample.set_pred_score(score).set_pred_label(score.argmax(dim=0, keepdim=True))
        self.evaluator.process(data_samples=samples, data_batch=data_batch)
        self.runner.call_hook(
            'after_test_iter', batch_idx=idx, data_batch=data_batch, outputs=samples
        )

    @torch.no_grad()
    def _extract(self, batch: Mapping[str, Any]) -> tuple[Tensor, list[Any]]:
        """Returns the features of a batch, ``[B, C]`` of unit length, and its samples."""
        model = unwrap_model(self.runner.model)
        if not hasattr(model, 'extract_feat') or getattr(model, 'head', None) is None:
            raise UserError(
                'NearestNeighborTestLoop takes the features of an ImageClassifier with a head, '
                f'got a {type(model).__name__}'
            )
        data = model.data_preprocessor(batch, False)
        with autocast(enabled=self.fp16):
            features = model.extract_feat(data['inputs'], stage='pre_logits')
        if features.ndim != 2:
            raise UserError(
                f'the features are maps of {features.shape[1]} channels, and not vectors: write '
                "neck=dict(type='GlobalAveragePooling') in the model"
            )
        return nn.functional.normalize(features.float(), dim=1), data['data_samples']
