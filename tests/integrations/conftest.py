"""Points huggingface_hub to a stand-in for the Hugging Face Hub."""

import pytest

from tests.integrations.hub_server import stand_in


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """An empty stand-in, an empty cache and no token; retries do not wait.

    This patches constants, since huggingface_hub reads the environment when it is imported, which
    other tests may have done.
    """
    huggingface_hub = pytest.importorskip('huggingface_hub')
    constants = huggingface_hub.constants
    with stand_in() as server:
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, server.url)
        monkeypatch.setattr(constants, 'ENDPOINT', server.url)
        monkeypatch.setattr(constants, 'HUGGINGFACE_CO_URL_TEMPLATE', template)
        monkeypatch.setattr(constants, 'HF_HUB_CACHE', str(tmp_path / 'cache'))
        monkeypatch.setattr(constants, 'HF_TOKEN_PATH', str(tmp_path / 'token'))
        monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', False)
        monkeypatch.setattr('huggingface_hub.utils._http.time.sleep', lambda _: None)
        monkeypatch.delenv('HF_TOKEN', raising=False)
        yield server


@pytest.fixture
def offline(hub, monkeypatch):
    """Turns on the effect of HF_HUB_OFFLINE=1."""

    def turn_on():
        monkeypatch.setattr('huggingface_hub.constants.HF_HUB_OFFLINE', True)

    return turn_on
