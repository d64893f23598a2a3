"""`pydeper serve`: the gateway, and the API keys of its clients."""

import argparse
import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import attrs

from pydeper.cli.command import add_command, add_model, add_runtime, add_servers
from pydeper.errors import InvalidArgumentError, PydeperError
from pydeper.serve.settings import Settings, check_host, from_environment

if TYPE_CHECKING:
    from pydeper.serve.store.store import Store

_LIMITS = {
    "max_bytes": "largest request body",
    "max_pixels": "largest image",
    "max_samples": "samples of a persona",
    "max_personas": "personas of a tenant",
    "max_new_tokens": "longest description that may be asked for",
    "upload_seconds": "time for a request body to arrive",
    "deadline_seconds": "time for an answer once the body is there",
    "queue_length": "descriptions that may wait",
    "batch_rows": "descriptions that are computed together",
    "image_cache": "encoded images to keep",
}


def add_to(commands: Any) -> None:
    """Adds the sub-command and those below it."""
    serve = add_command(commands, "serve", run, "serve descriptions and personas over HTTP")
    add_model(serve)
    add_runtime(serve)
    add_servers(serve)
    serve.set_defaults(device=None)
    serve.add_argument("--precision", metavar="P", help="of the model: fp32, fp16, int8 or int4")
    serve.add_argument("--host", default="127.0.0.1", help="default: %(default)s")
    serve.add_argument("--port", type=int, default=8080, help="default: %(default)s; 0 takes a free one")
    _add_database(serve)
    serve.add_argument(
        "--no-keys",
        dest="keys",
        action="store_const",
        const=False,
        help="need no API key; for programs of this machine alone (127.0.0.1, localhost, ::1)",
    )
    limits = serve.add_argument_group("limits", "Variables such as PYDEPER_SERVE_MAX_BYTES set them as well.")
    fields = attrs.fields_dict(Settings)
    for name, text in _LIMITS.items():
        default = fields[name].default
        kind, told = (
            (int, "16, or as many as vLLM servers take") if default is None else (type(default), f"{default:g}")
        )
        limits.add_argument(f"--{name.replace('_', '-')}", type=kind, metavar="N", help=f"{text} (default: {told})")
    keys = serve.add_subparsers(title="commands", metavar="COMMAND").add_parser(
        "keys", help="make, list and revoke API keys", description="Make, list and revoke API keys."
    )
    of_keys = keys.add_subparsers(title="commands", metavar="COMMAND", required=True)
    create = add_command(of_keys, "create", _create, "make a key for a tenant and print it, this once")
    create.add_argument("tenant", metavar="TENANT", help="whose key it is; each tenant sees its own personas alone")
    listing = add_command(of_keys, "list", _list, "tell which keys there are")
    revoke = add_command(of_keys, "revoke", _revoke, "end a key at once")
    revoke.add_argument("id", metavar="ID", help="the key's id, which `keys list` tells")
    for command in (create, listing, revoke):
        _add_database(command)


def _add_database(command: argparse.ArgumentParser) -> None:
    default = attrs.fields_dict(Settings)["database"].default
    # A default of a command below would replace what was said to the one above.
    command.add_argument(
        "--database",
        metavar="URL",
        default=argparse.SUPPRESS,
        help=f"sqlite:///FILE or postgresql://USER@HOST/NAME (default: $PYDEPER_SERVE_DATABASE, else {default})",
    )


def run(options: argparse.Namespace) -> int:
    """Serves until SIGTERM or Ctrl-C; what was accepted until then is answered."""
    settings = _settings(options)
    check_host(options.host, settings)
    with _extra():
        from pydeper.serve.server import serve

    return serve(settings, options.host, options.port)


def _create(options: argparse.Namespace) -> int:
    with _store(options) as store:
        from pydeper.serve.access import create_key

        print(create_key(store, options.tenant))
    return 0


def _list(options: argparse.Namespace) -> int:
    with _store(options) as store:
        for key in store.list_keys():
            ended = f", revoked {key.revoked.isoformat(sep=' ', timespec='seconds')}" if key.revoked else ""
            print(f"{key.id}  {key.tenant}, created {key.created.isoformat(sep=' ', timespec='seconds')}{ended}")
    return 0


def _revoke(options: argparse.Namespace) -> int:
    with _store(options) as store:
        if not store.revoke_key(options.id):
            raise InvalidArgumentError(f"there is no valid key {options.id!r}; `pydeper serve keys list` tells the ids")
    return 0


@contextlib.contextmanager
def _store(options: argparse.Namespace) -> "Iterator[Store]":
    with _extra():
        from pydeper.serve.store.store import Store

    store = Store(_settings(options).database)
    try:
        store.migrate()
        yield store
    finally:
        store.close()


def _settings(options: argparse.Namespace) -> Settings:
    """What was said on the command line, else in the environment, else the default."""
    given = {name: value for name, value in vars(options).items() if value is not None}
    if "vlm" in given:
        given["vlm"] = ",".join(given["vlm"])
    return attrs.evolve(
        from_environment(), **{name: given[name] for name in attrs.fields_dict(Settings) if name in given}
    )


@contextlib.contextmanager
def _extra() -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        raise PydeperError(
            f'the gateway needs {error.name}, which is not installed: pip install "pydeper[cpu,serve]"'
        ) from error
