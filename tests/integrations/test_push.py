"""Tests uploads to a stand-in for the Hub, and loading them again."""

import pytest
import torch
import yaml

import nat_mm
from nat_mm.errors import UserError
from tests.integrations.hub_server import TOKEN
from tests.model_zoo import ROOT

pytest.importorskip('huggingface_hub')
hub_module = pytest.importorskip('nat_mm.integrations.hub')
CONFIG = str(ROOT / 'configs/demo/upernet_nat_demo.py')


@pytest.fixture(scope='module')
def model():
    return nat_mm.load_model(CONFIG, 'none', device='cpu')


@pytest.fixture
def logged_in(monkeypatch):
    monkeypatch.setenv('HF_TOKEN', TOKEN)


def test_there_and_back(hub, logged_in, model, tmp_path):
    model.config.work_dir = '/home/somebody/work'
    address = hub_module.push_to_hub(
        model, 'owner/scenes', metrics={'mIoU': 71.25}, dataset='Scenes', license='mit'
    )
    assert address == 'hf://owner/scenes'
    files = hub.repositories['owner/scenes']['main']
    assert sorted(files) == ['README.md', 'config.py', 'model.safetensors']
    assert b'/home/somebody' not in b''.join(files.values())
    (tmp_path / 'config.py').write_bytes(files['config.py'])
    back = nat_mm.load_model(str(tmp_path / 'config.py'), address, device='cpu')
    assert back.classes == model.classes
    assert back.palette == model.palette
    wanted, found = model.module.state_dict(), back.module.state_dict()
    assert wanted.keys() == found.keys()
    assert all(torch.equal(wanted[key], found[key]) for key in wanted)


def test_model_card(model):
    card = hub_module.write_card(
        model,
        'hf://owner/scenes@v1',
        metrics={'mIoU': 71.25},
        dataset='Scenes of mine',
        license='mit',
    )
    _, header, text = card.split('---\n', 2)
    data = yaml.safe_load(header)
    assert (data['license'], data['library_name']) == ('mit', 'nat_mm')
    assert data['pipeline_tag'] == 'image-segmentation'
    assert {'nat', 'mmseg', 'neighborhood-attention'} <= set(data['tags'])
    (entry,) = data['model-index']
    (result,) = entry['results']
    assert result['dataset'] == {'name': 'Scenes of mine', 'type': 'scenes-of-mine'}
    assert (result['metrics'][0]['name'], result['metrics'][0]['value']) == ('mIoU', 71.25)
    assert '| mIoU | 71.25 |' in text
    assert "nat_mm.load_model('config.py', 'hf://owner/scenes@v1')" in text
    assert '\nmit.\n' in text


def test_model_card_without_results_and_license(model):
    card = hub_module.write_card(model, 'hf://owner/scenes', metrics={}, dataset=None, license=None)
    assert 'license' not in yaml.safe_load(card.split('---\n')[1])
    assert 'stated no license' in card


def test_checkpoint_to_a_private_repository_and_a_branch(hub, logged_in, model, tmp_path):
    torch.save({'state_dict': model.module.state_dict()}, tmp_path / 'last.pth')
    address = hub_module.push_to_hub(
        tmp_path / 'last.pth', 'owner/scenes', config=CONFIG, private=True, revision='v1'
    )
    assert address == 'hf://owner/scenes@v1'
    assert 'owner/scenes' in hub.private
    assert 'model.safetensors' in hub.repositories['owner/scenes']['v1']


@pytest.mark.parametrize(
    ('repository', 'options', 'message'),
    [
        ('owner/scenes', {}, 'does not let you write there. Run hf auth login, or set HF_TOKEN'),
        ('a/b/c', {}, "'a/b/c' must be owner/name: "),
        ('owner/scenes', {'config': CONFIG}, 'a loaded model has a config of its own'),
    ],
    ids=['no token', 'no owner/name', 'config of a model'],
)
def test_mistakes(hub, model, repository, options, message):
    with pytest.raises(UserError, match=message):
        hub_module.push_to_hub(model, repository, **options)
    assert hub.repositories == {}


def test_offline(hub, offline, logged_in, model):
    offline()
    with pytest.raises(UserError, match='owner/scenes was not uploaded: .*offline mode'):
        hub_module.push_to_hub(model, 'owner/scenes')


def test_checkpoint_without_a_config():
    with pytest.raises(UserError, match='give the config of last.pth, too'):
        hub_module.push_to_hub('last.pth', 'owner/scenes')
