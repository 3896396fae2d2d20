"""Tests Hugging Face's models that contain a Dinat, running on our operator."""

import importlib
import sys
import types

import pytest
import torch
from torch.testing import assert_close

from nat_mm.ops import neighborhood_attention_weights

transformers = pytest.importorskip('transformers', reason='transformers is not installed')
integration = importlib.import_module('nat_mm.integrations.transformers')
STAGES = ['stage1', 'stage2', 'stage3', 'stage4']
SMALL = {
    'embed_dim': 16,
    'depths': (2, 1, 1, 1),
    'num_heads': (1, 2, 4, 8),
    'kernel_size': 3,
    'dilations': ((1, 3), (2,), (1,), (1,)),
    'layer_scale_init_value': 0.1,
    'drop_path_rate': 0.0,
}


def make(kind, **options):
    torch.manual_seed(0)
    model = getattr(transformers, kind)(transformers.DinatConfig(**{**SMALL, **options}))
    for name, parameter in model.named_parameters():
        torch.nn.init.normal_(parameter, std=0.5 if name.endswith('rpb') else 0.2)
    return model


def attend_by_definition(self, hidden_states, output_attentions=False):
    """Returns the neighbors' weighted sum, and optionally the weights, without an operator."""
    heads = (self.num_attention_heads, self.attention_head_size)
    query, key, value = (
        project(hidden_states).unflatten(-1, heads)
        for project in (self.query, self.key, self.value)
    )
    weights, near = neighborhood_attention_weights(
        query, key, kernel_size=self.kernel_size, dilation=self.dilation, bias=self.rpb
    )
    near_value = value[:, near[..., 0], near[..., 1]]  # [B, H, W, k * k, heads, D]
    attended = torch.einsum('bhwnk,bhwknd->bhwnd', weights, near_value).flatten(3)
    return (attended, weights.movedim(3, 1)) if output_attentions else (attended,)


@pytest.fixture
def by_definition(monkeypatch):
    from transformers.models.dinat import modeling_dinat

    def run(function):
        with monkeypatch.context() as patch:
            patch.setattr(modeling_dinat.NeighborhoodAttention, 'forward', attend_by_definition)
            return function()

    return run


# The stages of the smaller image are 8 x 11, 4 x 6, 2 x 3 and 1 x 2, smaller than a window.
@pytest.mark.parametrize('size', [(32, 42), (97, 105)], ids=['smaller than windows', 'larger'])
@pytest.mark.parametrize(
    ('kind', 'options', 'outputs'),
    [
        ('DinatModel', {}, lambda output: (output.last_hidden_state, output.pooler_output)),
        ('DinatBackbone', {'out_features': STAGES}, lambda output: output.feature_maps),
        ('DinatForImageClassification', {'num_labels': 5}, lambda output: (output.logits,)),
    ],
    ids=['model', 'backbone', 'classifier'],
)
def test_outputs_and_gradients_are_those_of_the_definition(
    kind, options, outputs, size, by_definition
):
    model = make(kind, **options).double().train()
    image = torch.randn(2, 3, *size, dtype=torch.float64)

    def run():
        found = outputs(model(image))
        model.zero_grad()
        sum(output.square().mean() for output in found).backward()
        grads = [p.grad for p in model.parameters() if p.grad is not None]
        return [*found, *grads]

    assert_close(run(), by_definition(run))


def test_float32_is_within_1e_5_of_the_definition(by_definition):
    model = make('DinatForImageClassification', num_labels=5, embed_dim=32).eval()
    image = torch.randn(2, 3, 97, 105)
    with torch.no_grad():
        found = model(image).logits
        wanted = by_definition(lambda: model.double()(image.double()).logits)
    assert (found - wanted).abs().max() <= 1e-5 * max(1, wanted.abs().max())


def test_output_attentions(by_definition):
    """Each stage's last layer returns attentions, as in transformers; the rest is unchanged."""
    model = make('DinatModel').double().eval()
    image = torch.randn(1, 3, 97, 105, dtype=torch.float64)
    with torch.no_grad():
        found = model(image, output_attentions=True)
        wanted = by_definition(lambda: model(image, output_attentions=True))
        assert_close(found.last_hidden_state, model(image).last_hidden_state)
    assert [list(weights.shape) for weights in found.attentions] == [
        [1, heads, height, width, 9]
        for heads, height, width in ((1, 25, 27), (2, 13, 14), (4, 7, 7), (8, 4, 4))
    ]
    assert_close(found.attentions, wanted.attentions)


def test_dropout_of_weights_in_training():
    model = make('DinatModel', attention_probs_dropout_prob=0.5)
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        kept = model.eval()(image).last_hidden_state
        dropped = model.train()(image).last_hidden_state
    assert (kept - dropped).abs().max() > 0.01


def small_segmentor(kind):
    """Makes a segmentor with a Dinat and the inputs to train it on two images."""
    backbone = transformers.DinatConfig(**SMALL, out_features=STAGES)
    sizes = {
        'backbone_config': backbone,
        'hidden_dim': 64,
        'mask_feature_size': 64,
        'feature_size': 64,
        'encoder_feedforward_dim': 32,
        'encoder_layers': 1,
        'decoder_layers': 3,
        'num_attention_heads': 4,
        'dim_feedforward': 32,
        'num_queries': 8,
        'num_labels': 4,
        'train_num_points': 32,
    }
    inputs = {
        'pixel_values': torch.randn(2, 3, 64, 96),
        'pixel_mask': torch.ones(2, 64, 96, dtype=torch.long),
        'mask_labels': [torch.randint(2, (3, 64, 96)).float() for _ in range(2)],
        'class_labels': [torch.tensor([0, 1, 2]), torch.tensor([1, 3, 0])],
    }
    if kind == 'Mask2Former':
        config = transformers.Mask2FormerConfig(**sizes)
        return transformers.Mask2FormerForUniversalSegmentation(config), inputs
    for name in ('mask_feature_size', 'feature_size'):
        del sizes[name]
    config = transformers.OneFormerConfig(
        **sizes,
        conv_dim=64,
        mask_dim=64,
        is_training=True,
        text_encoder_width=64,
        text_encoder_context_length=7,
        text_encoder_num_layers=1,
        text_encoder_vocab_size=50,
        text_encoder_n_ctx=2,
        task_seq_len=7,
        query_dec_layers=1,
    )
    inputs['task_inputs'] = torch.randint(50, (2, 7))
    inputs['text_inputs'] = torch.randint(50, (2, 6, 7))
    return transformers.OneFormerForUniversalSegmentation(config), inputs


@pytest.mark.parametrize('kind', ['Mask2Former', 'OneFormer'])
def test_segmentor_takes_a_step_of_training(kind):
    torch.manual_seed(0)
    model, inputs = small_segmentor(kind)
    tables = {name: p for name, p in model.named_parameters() if name.endswith('.rpb')}
    assert len(tables) == 5
    before = {name: table.detach().clone() for name, table in tables.items()}
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    loss = model.train()(**inputs).loss.sum()
    loss.backward()
    optimizer.step()
    assert loss.isfinite()
    assert all((tables[name] != before[name]).any() for name in tables)


def test_model_made_before_the_import_and_a_second_import(monkeypatch):
    from transformers.models.dinat import modeling_dinat

    monkeypatch.setattr(modeling_dinat.NeighborhoodAttention, 'forward', attend_by_definition)
    monkeypatch.setattr(modeling_dinat, 'requires_backends', transformers.utils.requires_backends)
    with pytest.raises(ImportError, match='natten'):
        make('DinatModel')
    for _ in range(2):
        integration._use_our_operator()
        assert modeling_dinat.NeighborhoodAttention.forward is integration.attend
        assert make('DinatModel')
    other = modeling_dinat.requires_backends
    with pytest.raises(KeyError, match='no_such_library'):
        other(transformers.DinatModel, ['natten', 'no_such_library'])


def test_a_natten_without_the_old_functions_does_not_matter(monkeypatch):
    """modeling_dinat imports two of the old functions if it finds any natten."""
    from transformers.models import dinat

    name = 'transformers.models.dinat.modeling_dinat'
    monkeypatch.setattr(dinat, 'modeling_dinat', sys.modules[name], raising=False)
    monkeypatch.delitem(sys.modules, name)
    natten = types.ModuleType('natten')
    natten.functional = types.ModuleType('natten.functional')
    monkeypatch.setitem(sys.modules, 'natten', natten)
    monkeypatch.setitem(sys.modules, 'natten.functional', natten.functional)
    monkeypatch.setattr(transformers.utils, 'is_natten_available', lambda: True)
    with pytest.raises(ImportError, match='natten2dav'):
        importlib.import_module(name)
    assert integration._import_dinat().__name__ == name


def test_without_transformers_the_message_says_what_to_install(monkeypatch):
    monkeypatch.delitem(sys.modules, 'nat_mm.integrations.transformers')
    monkeypatch.setitem(sys.modules, 'transformers', None)
    with pytest.raises(ImportError, match=r"needs transformers; .* 'nat_mm\[transformers\]'"):
        importlib.import_module('nat_mm.integrations.transformers')
