"""Which server takes the next request: the least busy of those that are not set aside after a failure."""

import asyncio
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import attrs

from pydeper.errors import VLLMUnreachableError
from pydeper.vlm.vllm.failures import ServerFailedError

_LONGEST_BACKOFF = 30.0  # seconds


@attrs.frozen
class ServedModel:
    """What a server says of itself.

    Attributes:
        name: What the model is called in requests.
        context_length: The most tokens of prompt and description, or None where it does not say.
        version: Of vLLM, or None where it does not say.
    """

    name: str
    context_length: int | None
    version: str | None


@attrs.define(eq=False)
class Server:
    """One server, as the requests to it find it.

    Attributes:
        address: Of its API.
        serves: What it says of itself; None until it was queried.
        open_requests: How many there are.
        taken: When it was chosen last, as a count of choices.
        failures: How many came one after another.
        aside_until: When it will be tried again, by `time.monotonic`.
        last_failure: The last one's reason.
    """

    address: str
    serves: ServedModel | None = None
    open_requests: int = 0
    taken: int = 0
    failures: int = 0
    aside_until: float = 0.0
    last_failure: str = ""

    def described(self) -> str:
        """Says what it serves, or why that is not known."""
        if self.serves is None:
            return f"{self.address}: not reached: {self.last_failure}"
        known = [
            f"vLLM {self.serves.version}" if self.serves.version else "vLLM of an unknown version",
            f"model {self.serves.name!r}",
            *([f"context of {self.serves.context_length} tokens"] if self.serves.context_length else []),
        ]
        aside = f"; set aside: {self.last_failure}" if self.aside_until > time.monotonic() else ""
        return f"{self.address}: {', '.join(known)}{aside}"


class Fleet:
    """The servers; used in one event loop alone."""

    def __init__(self, addresses: Sequence[str], *, backoff: float, patience: float) -> None:
        """Takes the servers as they are: none has been queried yet.

        Args:
            addresses: Of their APIs.
            backoff: Seconds that a server is set aside for after its first failure.
            patience: The most seconds to wait for a server, where all are set aside.
        """
        self.servers = [Server(address) for address in addresses]
        self._backoff, self._patience = backoff, patience

    async def take(self) -> Server:
        """Returns the least busy server, of equals in turn, and waits for one where all are set aside.

        Raises:
            VLLMUnreachableError: None will be tried again for longer than the fleet has patience.
        """
        while True:
            now = time.monotonic()
            ready = [server for server in self.servers if server.aside_until <= now]
            if ready:
                chosen = min(ready, key=lambda server: (server.open_requests, server.taken))
                chosen.taken = max(server.taken for server in self.servers) + 1
                return chosen
            wait = min(server.aside_until for server in self.servers) - now
            if wait > self._patience:
                raise self.unreachable(f"all ask to wait, the first for {wait:.0f} s")
            await asyncio.sleep(wait)

    @contextmanager
    def working(self, server: Server) -> Iterator[None]:
        """Counts a request as open, and sets the server aside where the request fails.

        It is set aside for as long as it asks for, else for a time that doubles with every failure in a row. What
        fails while it is aside already is the same failure: requests that were open together are not counted apart.
        """
        server.open_requests += 1
        try:
            yield
        except ServerFailedError as failure:
            server.last_failure = str(failure)
            now = time.monotonic()
            if server.aside_until <= now:
                server.failures += 1
            doubled = min(self._backoff * 2 ** min(server.failures - 1, 16), _LONGEST_BACKOFF)
            wait = failure.retry_after if failure.retry_after is not None else doubled * random.uniform(0.75, 1.25)
            server.aside_until = max(server.aside_until, now + wait)
            raise
        else:
            server.failures, server.last_failure = 0, ""
        finally:
            server.open_requests -= 1

    def unreachable(self, what: str) -> VLLMUnreachableError:
        """Returns the error that says what failed at each server."""
        each = "; ".join(f"{server.address}: {server.last_failure}" for server in self.servers if server.last_failure)
        return VLLMUnreachableError(
            f"no vLLM server went through with it ({what}): {each or 'none was tried'}. Check that they run and can be "
            "reached from here"
        )
