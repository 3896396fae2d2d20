"""Measures how well a backbone's features move along with the image."""

from dataclasses import dataclass

import torch
from torch import Tensor

from nat_mm.analysis.windows import TOKEN_STRIDE
from nat_mm.backbones.base import NeighborhoodBackbone


@dataclass(frozen=True)
class Equivariance:
    """How a shift of the image by one token changes the features of a stage."""

    stage: int
    stride: int
    """Image pixels per token, by which the image was shifted to the right and down."""
    change: Tensor
    """[H, W], float32: for each token seen before and after the shift, the norm of the difference
    as a share of the mean norm of a token."""

    @property
    def error(self) -> float:
        """The root mean square of the change over the middle half of each axis; 0 is best."""
        height, width = self.change.shape
        top, left = height // 4, width // 4
        middle = self.change[top : height - top, left : width - left]
        return float(middle.square().mean().sqrt())


def measure_equivariance(backbone: NeighborhoodBackbone, image: Tensor) -> list[Equivariance]:
    """Compares the features of crops of an image that are one token apart.

    For each stage, two crops of equal size are offset by the stage's stride on both axes. If
    attention treated all positions alike, the feature of a token would be the same in both crops,
    unless it depends on pixels that only one of them contains, or on the borders.

    Args:
        backbone: A NAT, DiNAT or DiNAT_s with any attention pattern; it runs in eval mode.
        image: Input of the backbone, [1, in_channels, H, W]. Each side of the crops is as long as
            the whole tokens of the last stage that fit in the image, minus one token.

    Returns:
        The change for each stage that the backbone returns.

    Raises:
        ValueError: The image is too small for the crops to have 2 x 2 tokens of the last stage.
    """
    largest = TOKEN_STRIDE * 2 ** backbone.out_indices[-1]
    height, width = (length // largest * largest - largest for length in image.shape[2:])
    if min(height, width) < 2 * largest:
        raise ValueError(
            f'to move by a token of {largest} pixels, an image must have {3 * largest} pixels or '
            f'more on each side, got {image.shape[2]} x {image.shape[3]} (H x W)'
        )

    def run(start: int) -> tuple[Tensor, ...]:
        return backbone(image[..., start : start + height, start : start + width])

    found = []
    was_training = backbone.training
    backbone.eval()
    try:
        with torch.no_grad():
            before = run(largest)
            for index, stage in enumerate(backbone.out_indices):
                stride = TOKEN_STRIDE * 2**stage
                after = run(largest - stride)[index]
                still, moved = before[index][0, :, :-1, :-1], after[0, :, 1:, 1:]
                change = (moved - still).norm(dim=0) / still.norm(dim=0).mean()
                found.append(Equivariance(stage, stride, change.float().cpu()))
    finally:
        backbone.train(was_training)
    return found
