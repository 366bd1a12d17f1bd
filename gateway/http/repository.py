"""The model repository extension (OIP E8 to E10): what is published, take a model into memory, give its memory back.

Loading is what a first call does too, so nothing here is needed to serve. A model comes from the store as it was published: a load
that brings files or a configuration of its own is refused.
"""

import asyncio
from typing import Any

import msgspec
from litestar import Request, post
from litestar.di import NamedDependency
from litestar.params import FromPath

from gateway.access.caller import Caller
from gateway.errors import InvalidInput, ModelNotReady
from gateway.http import jsonbody
from gateway.http.service import Service


class IndexRequest(msgspec.Struct, frozen=True):
    """`ready` asks for what is in memory only."""

    ready: bool = False


class IndexEntry(msgspec.Struct, frozen=True, omit_defaults=True):
    """E8. `state` is one of Triton's words: READY is in memory, UNAVAILABLE is not, and its first call loads it."""

    name: str
    state: str
    reason: str
    version: str = ""


class LoadRequest(msgspec.Struct, frozen=True):
    """E9 and E10. The parameters stay raw: a file in one is not looked at, let alone decoded."""

    parameters: dict[str, msgspec.Raw] = {}


class Loaded(msgspec.Struct, frozen=True):
    """E9 as KServe answers it; Triton's clients look at the status only."""

    name: str
    load: bool


class Unloaded(msgspec.Struct, frozen=True):
    """E10."""

    name: str
    unload: bool


_indexes = msgspec.json.Decoder(IndexRequest)
_loads = msgspec.json.Decoder(LoadRequest)
_flags = msgspec.json.Decoder(bool)


@post("/v2/repository/index", status_code=200, summary="What is published, and what of it is in memory")
async def index(service: NamedDependency[Service], request: Request[Any, Any, Any]) -> list[IndexEntry]:
    caller: Caller = request.state.caller
    body = await request.body()
    asked = jsonbody.decode(_indexes, body) if body.strip() else IndexRequest()
    held = [
        IndexEntry(name=resident.name, version=str(resident.version), state="READY", reason=problem)
        for resident, problem in service.repository.residents()
        if caller.may(resident.name)
    ]
    if asked.ready:
        return held
    names = {entry.name for entry in held}
    names_published = await service.repository.registry.names()
    others = [name for name in names_published if name not in names and caller.may(name)]
    held += [IndexEntry(name=name, state="UNAVAILABLE", reason="not in memory; a call loads it") for name in others]
    return sorted(held, key=lambda entry: (entry.name, len(entry.version), entry.version))


@post("/v2/repository/models/{model:str}/load", status_code=200, summary="Take a model into memory")
async def load(service: NamedDependency[Service], request: Request[Any, Any, Any], model: FromPath[str]) -> Loaded:
    """Returns when it can answer. One that is in memory already stays as it is: its alias is followed anyway."""
    for name in await _parameters(request):
        if name == "config" or name.startswith("file:"):
            raise InvalidInput(
                f"parameter '{name[:32]}' is not supported: what is published is served as it is; publish a new version"
            )
    try:
        async with asyncio.timeout(service.load_wait_s):
            await service.repository.ready(model)
    except TimeoutError:
        raise ModelNotReady(f"model '{model}' is still being loaded; ask again") from None
    return Loaded(model, load=True)


@post("/v2/repository/models/{model:str}/unload", status_code=200, summary="Take a model out of memory")
async def unload(service: NamedDependency[Service], request: Request[Any, Any, Any], model: FromPath[str]) -> Unloaded:
    """All its versions, at once; requests under way end well. No model depends on another: `unload_dependents` changes nothing."""
    parameters = await _parameters(request)
    if "unload_dependents" in parameters:
        jsonbody.decode_part(_flags, parameters["unload_dependents"])
    if not service.repository.unload(model):
        await service.repository.manifest(model)  # says so when there is no such model
    return Unloaded(model, unload=True)


async def _parameters(request: Request[Any, Any, Any]) -> dict[str, msgspec.Raw]:
    body = await request.body()
    return jsonbody.decode(_loads, body).parameters if body.strip() else {}


HANDLERS = [index, load, unload]
