"""The gateway's own server process: uvicorn on one address, ended by SIGTERM or Ctrl-C."""

import logging

import uvicorn

from pydeper.model.loading import find_bundle
from pydeper.serve.access import LOCAL_TENANT
from pydeper.serve.app import make_app
from pydeper.serve.logs import log, log_to_stderr
from pydeper.serve.settings import Settings
from pydeper.serve.store.store import Store
from pydeper.vlm.vllm.settings import VLLMServers

_GRACE_SECONDS = 5


def serve(settings: Settings, host: str, port: int) -> int:
    """Serves until it is told to end, and then answers what it had accepted.

    Returns:
        The exit status: 0, or 3 where it could not start.

    Raises:
        BundleError: There is no such model.
        InvalidArgumentError: The database cannot be used.
        StoreUnavailableError: It cannot be reached.
    """
    servers = None if settings.servers is None else VLLMServers.of(settings.servers)
    find_bundle(settings.model, None, False, settings.precision, servers, settings.runtime)
    log_to_stderr()
    _check_store(settings)
    config = uvicorn.Config(
        make_app(settings),
        host=host,
        port=port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=round(settings.deadline_seconds + settings.upload_seconds + _GRACE_SECONDS),
    )
    server = uvicorn.Server(config)
    server.run()
    return 0 if server.started else 3


def _check_store(settings: Settings) -> None:
    """Says before the model is loaded what is wrong with the database, and whether anybody can come in at all."""
    store = Store(settings.database)
    try:
        store.migrate()
        if not settings.keys:
            log("no keys", logging.WARNING, tenant=LOCAL_TENANT, remedy="leave out --no-keys to need one")
        elif not any(key.revoked is None for key in store.list_keys()):
            log("no keys yet", logging.WARNING, remedy="make one with `pydeper serve keys create TENANT`")
    finally:
        store.close()
