"""Multi-scale deformable attention (arXiv 2010.04159), forward and backward.

mmcv calls these only for CUDA tensors; on the CPU, it calls the same PyTorch function directly.
"""

import torch
from torch import Tensor

from .precision import at_least_fp32


def ms_deform_attn_forward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    im2col_step: int,
) -> Tensor:
    """Sample each level at the given locations and sum with the given weights.

    Args:
        value: [B, keys, heads, head_dim], the levels concatenated.
        value_spatial_shapes: [levels, 2], height and width of each level, int64.
        value_level_start_index: [levels]; not used, since it follows from the shapes.
        sampling_locations: [B, queries, heads, levels, points, 2], x and y in [0, 1].
        attention_weights: [B, queries, heads, levels, points].
        im2col_step: Number of images that the compiled operator processes at a time; not used.

    Returns:
        [B, queries, heads * head_dim] in the dtype of ``value``.
    """
    output = _attend(value_spatial_shapes, value, sampling_locations, attention_weights)
    return output.to(value.dtype)


def ms_deform_attn_backward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    grad_output: Tensor,
    grad_value: Tensor,
    grad_sampling_loc: Tensor,
    grad_attn_weight: Tensor,
    im2col_step: int,
) -> None:
    """Add the gradients to ``grad_value``, ``grad_sampling_loc`` and ``grad_attn_weight``.

    ``grad_output`` is [B, queries, heads * head_dim]; the other arguments are as in
    :func:`ms_deform_attn_forward`.
    """
    inputs = [
        tensor.detach().requires_grad_()
        for tensor in (value, sampling_locations, attention_weights)
    ]
    with torch.enable_grad():
        output = _attend(value_spatial_shapes, *inputs)
    grads = torch.autograd.grad(output, inputs, at_least_fp32(grad_output))
    targets = (grad_value, grad_sampling_loc, grad_attn_weight)
    for target, grad in zip(targets, grads, strict=True):
        target.add_(grad)


def _attend(
    spatial_shapes: Tensor, value: Tensor, sampling_locations: Tensor, attention_weights: Tensor
) -> Tensor:
    # Imported here because mmcv.ops imports this package while it is being imported itself.
    from mmcv.ops.multi_scale_deform_attn import multi_scale_deformable_attn_pytorch

    return multi_scale_deformable_attn_pytorch(
        at_least_fp32(value),
        spatial_shapes.tolist(),  # one transfer from the device instead of one per level
        at_least_fp32(sampling_locations),
        at_least_fp32(attention_weights),
    )
