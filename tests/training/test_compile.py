"""Tests torch.compile on whole backbones: no graph break, any image size, the same gradients."""

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

# With and without padding: maps from 16 x 24 down to 4 x 4 tokens, windows from 6 x 6 to 12 x 12.
SIZES = [(64, 96), (96, 64), (37, 130), (46, 33), (80, 80)]


pytestmark = pytest.mark.usefixtures('forget_compiled_code')


def run(model, image):
    """Returns features, and the gradients of their positive parts' squares."""
    features = model(image)
    parameters = [each for each in model.parameters() if each.requires_grad]
    loss = sum(each.relu().square().sum() for each in features)
    return features, torch.autograd.grad(loss, parameters)


@pytest.mark.parametrize(
    ('make_backbone', 'constant_floats', 'options'),
    [
        ('DiNAT', False, dict(depths=(1,), num_heads=(1,), out_indices=(0,), dilations=[[4]])),
        ('DiNAT_s', True, {}),
    ],
    indirect=['make_backbone'],
    ids=['DiNAT', 'DiNAT_s'],
)
def test_one_graph_serves_all_sizes(make_backbone, constant_floats, options):
    """PyTorch treats the modules' floats as variables until operators need constants.

    Then it recompiles everything. The parts of DiNAT_s that DiNAT lacks have no floats except in
    PyTorch's own modules, so there they are constants from the start. DiNAT has one stage here,
    because its other stages begin with the same parts as the tokenizer.
    """
    model = make_backbone(layer_scale=0.5, **options)
    counter = CompileCounterWithBackend('aot_eager')
    compiled = torch.compile(model, backend=counter, fullgraph=True, dynamic=True)
    with torch._dynamo.config.patch(specialize_float=constant_floats):
        for height, width in SIZES:
            image = torch.randn(2, 3, height, width)
            torch.testing.assert_close(run(compiled, image), run(model, image))
            if (height, width) == SIZES[0]:
                graphs = counter.frame_count
    assert counter.frame_count == graphs


@pytest.mark.parametrize('make_backbone', ['NAT'], indirect=True)
@pytest.mark.parametrize('training', [True, False], ids=['training', 'evaluation'])
def test_frozen_and_checkpointed_layers(make_backbone, training):
    model = make_backbone(frozen_stages=1, with_cp=True).train(training)
    compiled = torch.compile(model, backend='aot_eager', fullgraph=True)
    image = torch.randn(2, 3, 36, 50)
    torch.testing.assert_close(run(compiled, image), run(model, image))
