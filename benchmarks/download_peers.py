"""Run in a peer's own environment: let it download from the measuring hub what it would download from the real one.

    python benchmarks/download_peers.py PEER API FOLDER COUNT JOBS

A peer whose addresses are fixed in its code is pointed to the local hub here; nothing else of it is changed.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from pathlib import Path


def civitai_hub(api: str, folder: Path, count: int, _jobs: int) -> None:
    """Its library, as its command line uses it: one file after the other, SHA-256 in a second pass."""
    peer = import_module("civitai_hub.download")  # the package has a function of this name
    from civitai_hub.cache import CacheStore
    from civitai_hub.client import CivitaiClient
    from civitai_hub.config import resolve_settings

    peer.TRUSTED_HOSTS = (*peer.TRUSTED_HOSTS, "127.0.0.1")
    settings = resolve_settings(cache_dir=str(folder))
    with CivitaiClient() as client:
        client.base_url = f"{api}/api/v1"
        for index in range(count):
            version = client.get_version(2000 + index)
            peer.download_file(client, 1000 + index, version, version.files[0], CacheStore(folder), settings=settings)


def civitdl(api: str, folder: Path, count: int, _jobs: int) -> None:
    """Its command line: one file after the other, no hash."""
    import requests

    ask = requests.Session.request

    def redirected(self: requests.Session, method: str, url: str, **more: object) -> requests.Response:
        return ask(self, method, url.replace("https://civitai.com", api), **more)

    requests.Session.request = redirected
    from civitdl.__main__ import main

    sources = [str(1000 + index) for index in range(count)]
    sys.argv = ["civitdl", "--pause-time", "0", "--max-images", "0", "--api-key", "none", *sources, str(folder)]
    main()


def huggingface_hub(api: str, folder: Path, _count: int, jobs: int) -> None:
    """Its snapshot download, no hash of the bytes."""
    os.environ |= {"HF_ENDPOINT": api, "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(folder / "home")}
    from huggingface_hub import snapshot_download

    snapshot_download("bench/files", local_dir=folder / "files", max_workers=jobs)


if __name__ == "__main__":
    name, hub, out, number, workers = sys.argv[1:]
    {"civitai-hub": civitai_hub, "civitdl": civitdl, "huggingface_hub": huggingface_hub}[name](
        hub, Path(out), int(number), int(workers)
    )
