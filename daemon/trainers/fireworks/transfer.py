"""Files that go to the service and come from it, each in one request, whole or not at all."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from daemon.trainers.fireworks.api import Api
from genome.errors import Conflict, InvalidAdapter, InvalidInput, Unavailable
from genome.lora import CONFIG, PEFT_WEIGHTS, Lora

ONE_REQUEST_BYTES = 150_000_000
"""The service's limit for a dataset that is sent to itself; a larger one goes to its storage."""
BLOCK_BYTES = 1 << 20
READY = "READY"


def put_dataset(api: Api, dataset: str, file: Path, examples: int, limit: int = ONE_REQUEST_BYTES) -> None:
    """Makes the dataset with that id there, if it is not, and returns once it can be trained on."""
    path = f"datasets/{dataset}"
    if api.find(path) is None:
        _made(api, "datasets", {"datasetId": dataset, "dataset": {"userUploaded": {}, "exampleCount": str(examples)}})
    if file.stat().st_size > limit:
        if not _is_ready(api, path):
            _put_stored(api, path, [file])
            api.post(f"{path}:validateUpload", {})
    else:
        api.retrying(f"the upload of {path}", lambda: _upload(api, path, file))
    _await_ready(api, path)


def put_adapter(api: Api, model: str, directory: Path, lora: Lora) -> None:
    """Makes the model with that id there, if it is not: an adapter on the account's base, to go on from."""
    path = f"models/{model}"
    if _is_ready(api, path):
        return
    targets = sorted({module.rpartition(".")[2] for module in lora.modules})
    details = {"baseModel": api.settings.base_model, "r": lora.rank, "targetModules": targets}
    if api.find(path) is None:
        _made(api, "models", {"modelId": model, "model": {"kind": "HF_PEFT_ADDON", "peftDetails": details}})
    _put_stored(api, path, [directory / CONFIG, directory / PEFT_WEIGHTS])
    api.get(f"{path}:validateUpload")
    _await_ready(api, path)


def fetch_adapter(api: Api, model: str, directory: Path) -> None:
    """Writes the two files of a PEFT adapter into an empty directory. Nothing that could be unpickled is asked for."""
    path = f"models/{model}"
    _await_ready(api, path)
    signed = _signed(api.get(f"{path}:getDownloadEndpoint"), path)
    found = {Path(name).name: address for name, address in signed.items()}
    for name in (CONFIG, PEFT_WEIGHTS):
        if name not in found:
            raise InvalidAdapter(f"the model {model} has no {name}; it holds {', '.join(sorted(found)) or 'nothing'}")
        address, target = found[name], directory / name
        api.retrying(f"the download of {name}", lambda address=address, target=target: _fetch(api, address, target))


def _made(api: Api, collection: str, body: Mapping[str, Any]) -> None:
    with suppress(Conflict):  # a try whose answer was lost made it
        api.post(collection, body)


def _is_ready(api: Api, path: str) -> bool:
    found = api.find(path)
    return found is not None and found.get("state") == READY


def _await_ready(api: Api, path: str) -> None:
    while (found := api.get(path)).get("state") != READY:
        status = found.get("status") or {}
        if status.get("code", "OK") != "OK":
            raise InvalidInput(f"{path} is not usable: {api.shown(str(status.get('message') or status['code']))}")
        api.alive()
        api.sleep(api.settings.poll_seconds)


def _upload(api: Api, path: str, file: Path) -> None:
    if _is_ready(api, path):  # also where the answer to an earlier try was lost
        return
    with _Told(file, api.alive) as stream:
        api.send("POST", f"{path}:upload", files={"file": (file.name, stream, "application/jsonl")})


def _put_stored(api: Api, path: str, files: list[Path]) -> None:
    sizes = {file.name: file.stat().st_size for file in files}
    signed = _signed(api.post(f"{path}:getUploadEndpoint", {"filenameToSize": sizes}), path)
    for file in files:
        if file.name not in signed:
            raise Unavailable(f"{api.settings.url} gave no address to send {file.name} of {path} to")
        address = signed[file.name]
        api.retrying(f"the upload of {file.name}", lambda file=file, address=address: _put(api, address, file))


def _put(api: Api, address: str, file: Path) -> None:
    size = str(file.stat().st_size)
    headers = {
        "Content-Type": "application/octet-stream",
        "Content-Length": size,
        "x-goog-content-length-range": f"{size},{size}",
    }
    with _Told(file, api.alive) as stream:
        api.stored("PUT", address, content=_blocks(stream), headers=headers).close()


def _fetch(api: Api, address: str, target: Path) -> None:
    answer = api.stored("GET", address)
    try:
        with target.open("wb") as file:
            for block in answer.iter_bytes(BLOCK_BYTES):
                file.write(block)
                api.alive()
    finally:
        answer.close()


def _signed(answer: Mapping[str, Any], path: str) -> dict[str, str]:
    signed = answer.get("filenameToSignedUrls")
    if not isinstance(signed, dict):
        raise Unavailable(f"the service gave no addresses for the files of {path}")
    return {str(name): str(address) for name, address in signed.items()}


def _blocks(stream: io.FileIO) -> Iterator[bytes]:
    while block := stream.read(BLOCK_BYTES):
        yield block


class _Told(io.FileIO):
    """A file that says when it is read from."""

    def __init__(self, path: Path, told: Callable[[], None]) -> None:
        super().__init__(path)
        self._told = told

    def read(self, size: int | None = -1) -> bytes:
        self._told()
        return super().read(-1 if size is None else size)
