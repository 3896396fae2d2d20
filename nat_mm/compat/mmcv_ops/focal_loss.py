"""Sigmoid and softmax focal losses (arXiv 1708.02002), forward and backward."""

import torch
from torch import Tensor

from .precision import at_least_fp32


def sigmoid_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Write the loss of each logit into ``output``.

    Args:
        input: [N, C] logits.
        target: [N] class indices, int64; C means background, which has no positive logit.
        weight: [C] weight of each target class, or an empty tensor for none.
        output: [N, C], written.
        gamma: How strongly well-classified logits are down-weighted.
        alpha: Factor of the positives' losses; that of the negatives is 1 - ``alpha``.
    """
    probability, positive, factor = _terms(input, target, weight, alpha)
    log_p, log_not_p = _log(probability), _log(1 - probability)
    loss = torch.where(positive, (1 - probability) ** gamma * log_p, probability**gamma * log_not_p)
    output.copy_(-factor * loss)


def sigmoid_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    """Write the derivative of each logit's loss into ``grad_input`` ([N, C]).

    The other arguments are as in :func:`sigmoid_focal_loss_forward`.
    """
    probability, positive, factor = _terms(input, target, weight, alpha)
    not_p = 1 - probability
    grad_positive = not_p**gamma * (not_p - gamma * probability * _log(probability))
    grad_negative = probability**gamma * (gamma * not_p * _log(not_p) - probability)
    grad_input.copy_(-factor * torch.where(positive, grad_positive, grad_negative))


def softmax_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Write the loss of each row into ``output``.

    Args:
        input: [N, C] probabilities; mmcv computes the softmax itself.
        target: [N] class indices, int64; rows with a negative index have no loss.
        weight: [C] weight of each target class, or an empty tensor for none.
        output: [N], written.
        gamma: How strongly well-classified rows are down-weighted.
        alpha: Factor of all losses.
    """
    probability, factor = _target_terms(input, target, weight, alpha)
    output.copy_(-factor * (1 - probability) ** gamma * _log(probability))


def softmax_focal_loss_backward(
    input: Tensor,
    target: Tensor,
    weight: Tensor,
    buff: Tensor,
    grad_input: Tensor,
    gamma: float,
    alpha: float,
) -> None:
    """Write the derivatives of each row's loss by its logits into ``grad_input`` ([N, C]).

    ``buff`` is an unused buffer of the compiled operator; the other arguments are as in
    :func:`softmax_focal_loss_forward`.
    """
    probability, factor = _target_terms(input, target, weight, alpha)
    not_p = 1 - probability
    slope = gamma * not_p ** (gamma - 1) * probability * _log(probability) - not_p**gamma
    classes = torch.arange(input.size(1), device=input.device)
    is_target = (target[:, None] == classes).to(probability.dtype)
    grad_input.copy_((factor * slope)[:, None] * (is_target - at_least_fp32(input)))


def _target_terms(
    input: Tensor, target: Tensor, weight: Tensor, alpha: float
) -> tuple[Tensor, Tensor]:
    """Return the target classes' probabilities, and alpha times their weights (0 for no class)."""
    index = target.clamp(min=0)
    probability = at_least_fp32(input).gather(1, index[:, None]).squeeze(1)
    factor = torch.where(target >= 0, alpha, 0.0).to(probability.dtype)
    if weight.numel():
        factor = factor * weight[index]
    return probability, factor


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
