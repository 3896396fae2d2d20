"""Tests that masks are pasted wherever their boxes lie."""

import pytest
import torch
from mmdet.models.roi_heads.mask_heads import fcn_mask_head

HEIGHT, WIDTH = 6, 9
OUTSIDE = [
    [12.0, 2, 15, 4],
    [2.0, 9, 5, 12],
    [-9.0, 2, -4, 4],
    [2.0, -9, 5, -4],
    [40.0, 40, 44, 44],
    [-2.5, 2, -0.5, 4],
    [9.5, 2, 15, 4],
]
INSIDE = [
    [2.0, 1, 6, 5],
    [-3.0, -2, 4, 3],
    [7.0, 4, 15, 12],
    [-5.0, -5, 20, 20],
    [-2.5, 2, 0.5, 4],
    [8.5, 2, 15, 4],
]


def paste_masks(paste, box):
    """Returns an image, (height, width), with the mask of a box pasted as on a CPU."""
    masks = torch.linspace(0.1, 1, 16).view(1, 1, 4, 4)
    pasted, where = paste(masks, torch.tensor([box]), HEIGHT, WIDTH, skip_empty=True)
    image = torch.zeros(1, HEIGHT, WIDTH)
    image[(slice(None), *where)] = pasted
    return image[0]


@pytest.mark.parametrize('box', [*OUTSIDE, *INSIDE], ids=str)
def test_mask_is_the_same_on_a_cpu_and_on_a_gpu(box):
    """On a GPU, mmdet pastes it into the whole image."""
    paste = fcn_mask_head._do_paste_mask
    whole = paste_masks(lambda *args, skip_empty: paste(*args, skip_empty=False), box)
    assert torch.equal(paste_masks(paste, box), whole)
    assert whole.any() == (box in INSIDE)
