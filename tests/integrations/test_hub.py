"""Tests checkpoints given as hf://owner/name, from a stand-in for the Hub and from the cache."""

import io
import sys
from urllib.error import URLError

import pytest
import torch
from mmengine.runner import CheckpointLoader
from safetensors.torch import save
from torch.testing import assert_close

import nat_mm
from nat_mm.checkpoints import load_pretrained, mirrors_first, published, read_checkpoint
from nat_mm.checkpoints.hub import HubAddress, download
from nat_mm.checkpoints.huggingface import to_huggingface
from nat_mm.errors import CheckpointError, UserError
from nat_mm.inference.checkpoint import read_for_model
from tests.checkpoints.models import make_backbone, make_classifier
from tests.integrations.hub_server import TOKEN

pytest.importorskip('huggingface_hub')
WEIGHTS = {'weight': torch.arange(3.0)}


def pickled(value):
    stream = io.BytesIO()
    torch.save(value, stream)
    return stream.getvalue()


@pytest.mark.parametrize(
    ('address', 'parts'),
    [
        ('hf://owner/name', ('owner/name', None, None)),
        ('hf://owner/name@v1.0', ('owner/name', 'v1.0', None)),
        ('hf://owner/na.me-x/model.pth', ('owner/na.me-x', None, 'model.pth')),
        ('hf://owner/name@main/a/b@c.pth', ('owner/name', 'main', 'a/b@c.pth')),
        ('hf://owner/name@refs/pr/3/a.pth', ('owner/name', 'refs/pr/3', 'a.pth')),
        ('hf://owner/name@my%2Fbranch', ('owner/name', 'my/branch', None)),
    ],
)
def test_parts_of_an_address(address, parts):
    parsed = HubAddress.parse(address)
    assert parsed == HubAddress(*parts)
    assert HubAddress.parse(str(parsed)) == parsed


@pytest.mark.parametrize(
    ('files', 'chosen'),
    [
        ({'pytorch_model.bin': b'1', 'model.safetensors': b'2', 'README.md': b''}, b'2'),
        ({'pytorch_model.bin': b'1', 'training_args.bin': b'2'}, b'1'),
        ({'deep/epoch_12.pth': b'1', 'config.json': b'{}'}, b'1'),
    ],
    ids=['safetensors first', 'bin', 'only one'],
)
def test_checkpoint_of_a_repository(hub, files, chosen, offline):
    hub.add('owner/name', files)
    address = 'hf://owner/name'
    with open(download(address), 'rb') as file:
        assert file.read() == chosen
    offline()
    with open(download(address), 'rb') as file:
        assert file.read() == chosen


def test_revision(hub):
    hub.add('owner/name', {'model.pth': b'new'})
    hub.add('owner/name', {'model.pth': b'old'}, revision='v1')
    for address, content in (
        ('hf://owner/name', b'new'),
        ('hf://owner/name@v1', b'old'),
        ('hf://owner/name@v1/model.pth', b'old'),
    ):
        with open(download(address), 'rb') as file:
            assert file.read() == content


@pytest.mark.parametrize(
    ('address', 'message'),
    [
        ('hf://name', 'hf://name is not an address on the Hugging Face Hub: write hf://owner/name'),
        ('hf://owner/gone', 'has no repository owner/gone, or it is private and needs hf auth'),
        ('hf://owner/secret/a.pth', 'has no repository owner/secret, or it is private'),
        ('hf://owner/gated', r'access to owner/gated is restricted. .*owner/gated, .* HF_TOKEN'),
        ('hf://owner/one@v9', 'owner/one has no branch, tag or commit v9'),
        ('hf://owner/one/b.pth', 'owner/one has no file b.pth'),
        ('hf://owner/none', r"has no checkpoint \(.*\.pth.*\), only 'README.md'"),
        (
            'hf://owner/two',
            "has 2 checkpoints, 'a.pth', 'b.pth': name one, such as hf://owner/two/a.pth",
        ),
    ],
)
def test_mistakes_are_one_line(hub, address, message):
    for name, files in {
        'secret': ['a.pth'],
        'gated': ['a.pth'],
        'one': ['a.pth'],
        'none': ['README.md'],
        'two': ['a.pth', 'b.pth'],
    }.items():
        hub.add(f'owner/{name}', dict.fromkeys(files, b''))
    hub.private.add('owner/secret')
    hub.gated.add('owner/gated')
    with pytest.raises(CheckpointError, match=message) as caught:
        download(address)
    assert '\n' not in str(caught.value)
    with pytest.raises(UserError, match=message):
        read_for_model(address)


@pytest.mark.parametrize('repository', ['owner/secret', 'owner/gated'])
def test_token_opens_what_is_private_or_gated(hub, repository, monkeypatch):
    hub.add(repository, {'a.pth': b'1'})
    hub.private.add('owner/secret')
    hub.gated.add('owner/gated')
    monkeypatch.setenv('HF_TOKEN', TOKEN)
    assert download(f'hf://{repository}')


def test_offline_and_not_in_the_cache(hub, offline):
    hub.add('owner/name', {'a.pth': b'1'})
    offline()
    for address in ('hf://owner/name', 'hf://owner/name/a.pth'):
        with pytest.raises(URLError, match='not in the cache, and HF_HUB_OFFLINE=1 forbids'):
            download(address)
        with pytest.raises(UserError, match=f'cannot download checkpoint {address}: it is not in'):
            read_for_model(address)
    assert hub.requests == []


def test_a_hub_that_does_not_answer(hub, monkeypatch):
    """The cache is used, with or without a file name."""
    hub.add('owner/name', {'a.pth': b'1'})
    hub.add('owner/other', {'a.pth': b'1'})
    known = download('hf://owner/name')
    constants = 'huggingface_hub.constants'
    monkeypatch.setattr(f'{constants}.ENDPOINT', 'http://127.0.0.1:9')
    template = 'http://127.0.0.1:9/{repo_id}/resolve/{revision}/{filename}'
    monkeypatch.setattr(f'{constants}.HUGGINGFACE_CO_URL_TEMPLATE', template)
    assert download('hf://owner/name') == download('hf://owner/name/a.pth') == known
    with pytest.raises(URLError, match='http://127.0.0.1:9 does not answer: '):
        download('hf://owner/other')


def test_without_huggingface_hub_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, 'huggingface_hub', None)
    message = r"hf://owner/name needs huggingface_hub: .* 'nat_mm\[hub\]'"
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint('hf://owner/name')


def test_no_code_in_a_file_is_run(hub):
    hub.add('owner/name', {'a.pth': pickled({'state_dict': {}, 'meta': print})})
    with pytest.raises(CheckpointError, match=r'a\.pth is refused: .*print'):
        CheckpointLoader.load_checkpoint('hf://owner/name')


@pytest.mark.parametrize('suffix', ['safetensors', 'bin'])
def test_backbone_starts_from_the_layout_of_hugging_face(hub, suffix):
    """Both init_cfg and load_pretrained load that layout."""
    authors = make_classifier()
    weights = to_huggingface(authors, model_type='nat', source='test')
    if suffix == 'bin':
        hub.add('owner/nat', {'pytorch_model.bin': pickled(weights)})
    else:
        weights = {key: tensor.contiguous() for key, tensor in weights.items()}
        hub.add('owner/nat', {'model.safetensors': save(weights)})
    by_function, by_config = make_backbone(), make_backbone()
    load_pretrained(by_function, 'hf://owner/nat')
    by_config.init_cfg = {'type': 'Pretrained', 'checkpoint': 'hf://owner/nat'}
    by_config.init_weights()
    for backbone in (by_function, by_config):
        key = 'levels.2.blocks.0.attn.qkv.weight'
        assert torch.equal(backbone.state_dict()[key], authors[key])


def test_load_from(hub):
    """This is the call that a runner makes."""
    hub.add('owner/name', {'epoch_1.pth': pickled({'state_dict': WEIGHTS, 'meta': {'epoch': 1}})})
    found = CheckpointLoader.load_checkpoint('hf://owner/name/epoch_1.pth', map_location='cpu')
    assert_close(found['state_dict'], WEIGHTS)
    assert found['meta'] == {'epoch': 1}


def test_a_config_is_not_run_from_the_network(hub):
    hub.add('owner/name', {'config.py': b'raise RuntimeError'})
    with pytest.raises(UserError, match='a config is a program, and none is run from the network'):
        nat_mm.load_model('hf://owner/name')


MIRROR = 'hf://shi-labs/nat-mini-in1k-224'


@pytest.fixture
def publish(hub, monkeypatch, tmp_path):
    """Sets the URL of a published file in the model zoo, next to its mirror."""
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'torch'))

    def name(host):
        url = f'{host}/owner/host/resolve/main/nat_mini.pth'
        entry = {'Weights': url, 'Mirror': MIRROR}
        monkeypatch.setattr(published, 'read_model_zoo', lambda: {'nat_mini_in1k_224': entry})
        return url

    hub.add('owner/host', {'nat_mini.pth': pickled({'weight': torch.zeros(3)})})
    return name


@pytest.fixture
def warnings(monkeypatch):
    found = []
    monkeypatch.setattr(
        'nat_mm.checkpoints.reading.print_log', lambda line, **_: found.append(line)
    )
    return found


SILENT = 'http://127.0.0.1:9'


@pytest.mark.parametrize('read', [read_checkpoint, CheckpointLoader.load_checkpoint])
def test_mirror_serves_where_the_host_does_not_answer(hub, publish, warnings, read):
    hub.add('shi-labs/nat-mini-in1k-224', {'pytorch_model.bin': pickled(WEIGHTS)})
    url = publish(SILENT)
    assert_close(read(url), WEIGHTS)
    (warning,) = warnings
    assert warning.startswith(f'{url} cannot be downloaded (')
    assert warning.endswith(f'); its mirror {MIRROR} is used')


@pytest.mark.parametrize('read', [read_checkpoint, CheckpointLoader.load_checkpoint])
def test_mirror_comes_first_if_asked(hub, publish, warnings, read):
    hub.add('shi-labs/nat-mini-in1k-224', {'pytorch_model.bin': pickled(WEIGHTS)})
    url = publish(hub.url)
    assert not read(url)['weight'].any()
    with mirrors_first():
        assert_close(read(url), WEIGHTS)
    assert warnings == []


def test_host_serves_where_the_mirror_that_comes_first_does_not(hub, publish, warnings):
    url = publish(hub.url)
    with mirrors_first():
        assert not read_checkpoint(url)['weight'].any()
    (warning,) = warnings
    assert 'has no repository shi-labs/nat-mini-in1k-224' in warning
    assert warning.endswith(f'; {url} is downloaded')


def test_neither_host_nor_mirror(publish):
    url = publish(SILENT)
    message = f'cannot download checkpoint {url}: .*; nor can its mirror {MIRROR} be used: .*has no'
    with pytest.raises(UserError, match=message):
        read_for_model(url)


def test_mirrors_of_the_model_zoo_are_the_authors():
    mirrors = [
        entry['Mirror'] for entry in published.read_model_zoo().values() if 'Mirror' in entry
    ]
    assert len(mirrors) == len(set(mirrors)) == 9
    for mirror in mirrors:
        address = HubAddress.parse(mirror)
        assert address.repository.startswith('shi-labs/')
        assert address.file is None
