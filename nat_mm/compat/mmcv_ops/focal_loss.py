"""Sigmoid focal loss (arXiv 1708.02002), forward and backward."""

import torch
from torch import Tensor

from .precision import at_least_fp32


def sigmoid_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Write the loss of every logit into ``output``.

    Args:
        input: [N, C] logits.
        target: [N] class indices, int64; C stands for background, which is no class's positive.
        weight: [C] weight of every target class, or an empty tensor for none.
        output: [N, C], written.
        gamma: How strongly well-classified logits are down-weighted.
        alpha: Share of the positives; negatives have 1 - ``alpha``.
    """
    probability, positive, factor = _terms(input, target, weight, alpha)
    log_p, log_not_p = _log(probability), _log(1 - probability)
    loss = torch.where(positive, (1 - probability) ** gamma * log_p, probability**gamma * log_not_p)
    output.copy_(-factor * loss)


def sigmoid_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    """Write the derivative of every logit's loss into ``grad_input`` ([N, C]).

    The other arguments are those of :func:`sigmoid_focal_loss_forward`.
    """
    probability, positive, factor = _terms(input, target, weight, alpha)
    not_p = 1 - probability
    grad_positive = not_p**gamma * (not_p - gamma * probability * _log(probability))
    grad_negative = probability**gamma * (gamma * not_p * _log(not_p) - probability)
    grad_input.copy_(-factor * torch.where(positive, grad_positive, grad_negative))


def _terms(
    input: Tensor, target: Tensor, weight: Tensor, alpha: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return probabilities, which logits are positive, and alpha times the class weight."""
    probability = at_least_fp32(input).sigmoid()
    classes = torch.arange(input.size(1), device=input.device)
    positive = target[:, None] == classes
    factor = torch.where(positive, alpha, 1 - alpha).to(probability.dtype)
    if weight.numel():
        factor = factor * weight[target, None]
    return probability, positive, factor


def _log(probability: Tensor) -> Tensor:
    return probability.clamp(min=torch.finfo(torch.float32).tiny).log()
