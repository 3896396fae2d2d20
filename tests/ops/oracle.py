"""Neighborhood attention in nested loops over tokens, straight from the definition."""

import math

import torch


def window_start(index, length, kernel_size):
    """Returns the first of the ``kernel_size`` tokens around ``index``, shifted at a border."""
    start = index - kernel_size // 2
    if start < 0:
        start = 0
    if start + kernel_size > length:
        start = length - kernel_size
    return start


def neighbors(position, length, kernel_size, dilation):
    """Returns the positions of a token's neighbors on one axis."""
    members = [p for p in range(length) if p % dilation == position % dilation]
    start = window_start(members.index(position), len(members), kernel_size)
    return members[start : start + kernel_size]


def attend(query, key, value, bias, kernel_size, dilation, scale):
    """Computes the operator on float64 tensors [B, H, W, heads, D]."""
    batch, height, width, heads, _ = query.shape
    output = torch.zeros_like(query)
    for b in range(batch):
        for h in range(heads):
            for i in range(height):
                for j in range(width):
                    scores, near = [], []
                    for y in neighbors(i, height, kernel_size[0], dilation[0]):
                        for x in neighbors(j, width, kernel_size[1], dilation[1]):
                            score = scale * float(query[b, i, j, h] @ key[b, y, x, h])
                            if bias is not None:
                                row = (y - i) // dilation[0] + kernel_size[0] - 1
                                column = (x - j) // dilation[1] + kernel_size[1] - 1
                                score += float(bias[h, row, column])
                            scores.append(score)
                            near.append(value[b, y, x, h])
                    largest = max(scores)
                    weights = [math.exp(score - largest) for score in scores]
                    total = sum(weights)
                    for weight, vector in zip(weights, near, strict=True):
                        output[b, i, j, h] += weight / total * vector
    return output
