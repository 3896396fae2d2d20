"""Downloads checkpoints from the Hugging Face Hub, by ``hf://owner/name[@revision][/file]``.

huggingface_hub downloads them to its own cache, with the token from ``hf auth login`` or HF_TOKEN,
from HF_ENDPOINT if that is set, and not at all if HF_HUB_OFFLINE=1.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from urllib.error import URLError
from urllib.parse import quote, unquote

from nat_mm.errors import CheckpointError, one_line, shorten

PREFIX = 'hf://'
USUAL_FILES = ('model.safetensors', 'pytorch_model.bin')
"""Names that transformers uses for the weights; the first is preferred."""
SUFFIXES = ('.safetensors', '.bin', '.pth', '.pt')

_ADDRESS = re.compile(
    r'hf://(?P<repository>[\w.-]+/[\w.-]+)(?:@(?P<revision>refs/pr/\d+|[^/@]+))?(?:/(?P<file>.+))?'
)


@dataclass(frozen=True)
class HubAddress:
    """A parsed address on the Hub.

    Attributes:
        repository: ``owner/name``.
        revision: Branch, tag or commit; None for the main branch.
        file: Path of the checkpoint in the repository; None for the default one.
    """

    repository: str
    revision: str | None = None
    file: str | None = None

    @classmethod
    def parse(cls, address: str) -> 'HubAddress':
        """Parses an address; a slash in the name of a branch is written ``%2F``.

        Raises:
            CheckpointError: If it is not an address on the Hub.
        """
        found = _ADDRESS.fullmatch(address)
        if found is None:
            raise CheckpointError(
                f'{address} is not an address on the Hugging Face Hub: write '
                'hf://owner/name, hf://owner/name@revision or hf://owner/name/file'
            )
        revision = found['revision']
        return cls(found['repository'], unquote(revision) if revision else None, found['file'])

    def __str__(self) -> str:
        revision = f'@{quote(self.revision, safe="")}' if self.revision else ''
        return f'{PREFIX}{self.repository}{revision}' + (f'/{self.file}' if self.file else '')


def download(address: str) -> str:
    """Downloads a checkpoint unless the newest version is in the cache.

    Args:
        address: ``hf://owner/name[@revision][/file]``. Without a file, this is the repository's
            ``model.safetensors``, otherwise its ``pytorch_model.bin``, otherwise its only
            checkpoint.

    Returns:
        Its path in the cache.

    Raises:
        CheckpointError: If there is no such repository, revision or file, access is denied, the
            repository has no or several checkpoints, or huggingface_hub is not installed.
        URLError: If the Hub does not respond, and the file is not in the cache.
    """
    wanted = HubAddress.parse(address)
    hub = import_hub(address)
    file = wanted.file or _find_checkpoint(hub, wanted)
    with _one_line(hub, wanted, file):
        return hub.hf_hub_download(wanted.repository, file, revision=wanted.revision)


def import_hub(address: str) -> ModuleType:
    """Imports huggingface_hub, which an address needs.

    Raises:
        CheckpointError: If it is not installed.
    """
    try:
        import huggingface_hub
        import huggingface_hub.errors
    except ModuleNotFoundError as error:
        if error.name != 'huggingface_hub':
            raise
        raise CheckpointError(
            f"{address} needs huggingface_hub: install it with pip install 'nat_mm[hub]'"
        ) from None
    return huggingface_hub


def _find_checkpoint(hub: ModuleType, address: HubAddress) -> str:
    """Finds the checkpoint in a repository if the address names no file."""
    try:
        with _one_line(hub, address, None):
            files = hub.HfApi().list_repo_files(address.repository, revision=address.revision)
    except URLError:
        files = _cached_files(hub, address)
        if not files:
            raise
    for name in USUAL_FILES:
        if name in files:
            return name
    checkpoints = sorted(name for name in files if name.endswith(SUFFIXES))
    if len(checkpoints) == 1:
        return checkpoints[0]
    if checkpoints:
        raise CheckpointError(
            f'{address} has {len(checkpoints)} checkpoints, {shorten(checkpoints, 5)}: name one, '
            f'such as {address}/{checkpoints[0]}'
        )
    raise CheckpointError(
        f'{address} has no checkpoint ({", ".join(SUFFIXES)}), only {shorten(sorted(files), 5)}'
    )


def _cached_files(hub: ModuleType, address: HubAddress) -> list[str]:
    """Lists the files of a revision that are in the cache."""
    try:
        repositories = hub.scan_cache_dir(hub.constants.HF_HUB_CACHE).repos
    except hub.errors.CacheNotFound:
        return []
    return [
        file.file_path.relative_to(revision.snapshot_path).as_posix()
        for repository in repositories
        if (repository.repo_type, repository.repo_id) == ('model', address.repository)
        for revision in repository.revisions
        if (address.revision or 'main') in (*revision.refs, revision.commit_hash)
        for file in revision.files
    ]


@contextmanager
def _one_line(hub: ModuleType, address: HubAddress, file: str | None) -> Iterator[None]:
    """Converts huggingface_hub's page-long exceptions to our own."""
    errors, repository = hub.errors, address.repository
    try:
        yield
    except errors.GatedRepoError as error:
        raise CheckpointError(
            f'{address}: access to {repository} is restricted. Ask for it at '
            f'{hub.constants.ENDPOINT}/{repository}, then run hf auth login or set HF_TOKEN'
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise CheckpointError(
            f'{address}: {hub.constants.ENDPOINT} has no repository {repository}, or it is private '
            'and needs hf auth login or HF_TOKEN'
        ) from error
    except errors.RevisionNotFoundError as error:
        raise CheckpointError(
            f'{address}: {repository} has no branch, tag or commit {address.revision}'
        ) from error
    except errors.LocalEntryNotFoundError as error:
        raise _unreachable(hub, error.__cause__ or error) from error
    except errors.EntryNotFoundError as error:
        raise CheckpointError(f'{address}: {repository} has no file {file}') from error
    except errors.HFValidationError as error:
        raise CheckpointError(f'{address}: {one_line(error)}') from error
    except Exception as error:
        # Network errors come from the HTTP library: httpx or its successor.
        if not isinstance(error, OSError) and not type(error).__module__.startswith('httpx'):
            raise
        raise _unreachable(hub, error) from error


def _unreachable(hub: ModuleType, error: BaseException) -> URLError:
    if hub.is_offline_mode():
        return URLError('it is not in the cache, and HF_HUB_OFFLINE=1 forbids downloading it')
    reason = one_line(error) or type(error).__name__
    return URLError(f'{hub.constants.ENDPOINT} does not answer: {reason}')
