# SPDX-License-Identifier: Apache-2.0
"""Running a gateway: listen, say so, serve, drain, end.

1. The settings are read, the cache is locked, the trust file and the recipient key are opened: what cannot work is said
   at the start.
2. The socket is bound before anything is said, so the ready line's port is real (also for port 0).
3. ``pqreg: gateway on http://HOST:PORT from SOURCES cache DIR`` means: requests are answered from now on.
4. SIGTERM or SIGINT: no new connections, downloads under way may finish for ``limits.DRAIN_SECONDS``, then exit 0. A
   second signal ends them at once.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from pq_registry.errors import SettingError
from pq_registry.gateway.app import Gateway
from pq_registry.gateway.config import GatewayConfig
from pq_registry.server.listening import bind, is_loopback, make_server, url_of
from pq_registry.server.logs import configure, log

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Ready:
    """What a gateway says when it answers requests."""

    url: str
    sources: tuple[str, ...]
    cache: str | None

    def __str__(self) -> str:
        kept = "no cache" if self.cache is None else f"cache {self.cache}"
        return f"pqreg: gateway on {self.url} from {'; '.join(self.sources)} {kept}"


def serve(config: GatewayConfig, clock: Callable[[], datetime], announce: Callable[[Ready], None]) -> None:
    """Serve until a signal.

    Args:
        config: what to serve from, and where.
        clock: the time by which everything is judged.
        announce: told once, when requests are answered.

    Raises:
        PqregError: if the gateway cannot start.
    """
    configure(sys.stdout, config.log_level)
    listener = bind(config.host, config.port)
    with contextlib.closing(listener), contextlib.ExitStack() as opened:
        if not is_loopback(listener.getsockname()[0]):
            raise SettingError(f"{config.host} is no address of loopback here", found=listener.getsockname()[0])
        cache = config.open_cache()
        if cache is not None:
            opened.callback(cache.close)
        origins = config.open_origins(clock)
        opened.pop_all()
        gateway = Gateway(origins, cache, connections=config.connections)
        with contextlib.closing(gateway):
            if config.token is None and config.settings.get("recipient_key") is not None:
                log(_LOGGER, logging.WARNING, "everyone on this machine can read what this gateway unseals",
                    hint="set gateway_token")  # fmt: skip
            ready = Ready(
                url_of(listener), tuple(origin.label for origin in origins),
                None if config.cache is None else str(config.cache),
            )  # fmt: skip
            app = gateway.application(hosts=config.hosts, token=config.token)
            make_server(app, lambda: announce(ready)).run(sockets=[listener])
