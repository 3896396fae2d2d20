"""Computes and draws gradient saliency: which pixels a model's output depends on."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor, nn

from nat_mm.analysis.drawing import COLORS
from nat_mm.analysis.prepared_image import PreparedImage
from nat_mm.files import whole_file
from nat_mm.fonts import write_plainly

NOISE = 0.15
"""Standard deviation of SmoothGrad's noise, as a share of the range of the input."""
DIFFERENCE_COLORS = 'coolwarm'
"""Color map of differences, from -1 to 1."""
_PANELS_IN_A_ROW = 4


@dataclass(frozen=True)
class Saliency:
    """How much a model's output depends on each pixel of an image."""

    magnitude: Tensor
    """[H, W], float32, on the CPU: norm over the channels of the gradient at each pixel."""
    label: int | None
    """Class of the highest logit, if that is the output; None if it is the features' norm."""


def saliency(model: nn.Module, image: Tensor, *, samples: int = 1) -> Saliency:
    """Computes the gradient of a model's output with respect to its input (arXiv 1312.6034).

    The output is the highest logit of mmpretrain's classifiers, and the Euclidean norm of the last
    feature map of any other model's ``backbone``.

    Args:
        model: A model of mmdet, mmseg or mmpretrain, in eval mode.
        image: Its normalized input, [1, C, H, W].
        samples: If above 1, averages the gradients over this many noisy copies of the image
            (SmoothGrad, arXiv 1706.03825); the seed of the noise is fixed.

    Returns:
        The saliency.

    Raises:
        ValueError: ``samples`` is below 1.
    """
    if samples < 1:
        raise ValueError(f'samples must be at least 1, got {samples}')
    label = None
    if _is_classifier(model):
        with torch.no_grad():
            label = int(model(image, mode='tensor')[0].argmax())
    generator = torch.Generator().manual_seed(0)
    deviation = NOISE * float(image.max() - image.min()) if samples > 1 else 0.0
    magnitude = torch.zeros(image.shape[2:])
    for _ in range(samples):
        noise = torch.randn(image.shape, generator=generator).to(image)
        noisy = (image.detach() + deviation * noise).requires_grad_()
        if label is None:
            output_value = model.backbone(noisy)[-1].norm()
        else:
            output_value = model(noisy, mode='tensor')[0, label]
        (gradient,) = torch.autograd.grad(output_value, noisy)
        magnitude += gradient[0].norm(dim=0).float().cpu() / samples
    return Saliency(magnitude, label)


def draw_saliency(
    image: NDArray[np.uint8], drawn: dict[str, tuple[PreparedImage, Saliency]], output: Path
) -> None:
    """Draws an image next to the saliency of one or more models.

    For two models, a last panel shows the difference: red where the first depends more on the
    image, blue where the second does.

    Every map is slightly smoothed and has its own scale, because gradients of different models are
    not comparable: the brightest color marks the strongest half percent of pixels.

    Args:
        image: [height, width, 3], uint8, BGR.
        drawn: By title, the input of each model and its saliency.
        output: File to write.
    """
    height, width = image.shape[:2]
    has_difference = len(drawn) == 2
    count = len(drawn) + 1 + has_difference
    columns = min(count, _PANELS_IN_A_ROW)
    rows = -(-count // columns)
    figure = Figure(
        figsize=(4.2 * columns, (4.2 * height / width + 0.4) * rows), layout='constrained'
    )
    panels = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes in panels:
        axes.set_axis_off()
    panels[0].imshow(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
    panels[0].set_title('image')
    for axes, (title, (prepared, found)) in zip(panels[1:], drawn.items(), strict=False):
        axes.imshow(smoothed(prepared, found), cmap=COLORS, vmin=0, vmax=1)
        write_plainly(axes.set_title(title))
    if has_difference:
        axes = panels[3]
        axes.imshow(difference(*drawn.values()), cmap=DIFFERENCE_COLORS, vmin=-1, vmax=1)
        axes.set_title('difference: red first, blue second')
    with whole_file(output) as unfinished:
        figure.savefig(unfinished, dpi=100)


def difference(
    first: tuple[PreparedImage, Saliency], second: tuple[PreparedImage, Saliency]
) -> NDArray[np.float32]:
    """Computes how much more one model's output depends on each pixel than another's.

    Args:
        first: Input of a model and its saliency.
        second: The same for another model; its map is resized to that of the first.

    Returns:
        Values from -1 to 1: the first map minus the second, each on its own scale (`smoothed`).
    """
    one, other = smoothed(*first), smoothed(*second)
    if one.shape != other.shape:
        height, width = one.shape
        other = cv2.resize(other, (width, height), interpolation=cv2.INTER_LINEAR)
    return one - other


def smoothed(prepared: PreparedImage, found: Saliency) -> NDArray[np.float32]:
    """Smooths and scales the saliency of an image for drawing.

    Args:
        prepared: Input of the model.
        found: Its saliency.

    Returns:
        Values from 0 to 1 for the pixels of the image in its size before padding.
    """
    height, width = prepared.resized.shape[:2]
    deviation = min(height, width) / 200
    values = cv2.GaussianBlur(found.magnitude[:height, :width].numpy(), (0, 0), deviation)
    highest = max(float(np.quantile(values, 0.995)), float(np.finfo(np.float32).tiny))
    return np.clip(values / highest, 0, 1)


def _is_classifier(model: nn.Module) -> bool:
    # Checked by module name, as mmpretrain may not be installed.
    modules = {base.__module__.split('.')[0] for base in type(model).__mro__}
    return 'mmpretrain' in modules and getattr(model, 'with_head', False)
