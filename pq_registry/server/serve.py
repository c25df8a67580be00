# SPDX-License-Identifier: Apache-2.0
"""Running the service: listen, say so, serve, drain, end.

1. The data directory is locked, migrated and swept; the first start makes the admin token.
2. The socket is bound before anything is said, so the ready line's port is real (also for port 0).
3. ``pqreg: serving on http://HOST:PORT data DIR`` on standard error means: requests are answered from now on.
4. SIGTERM or SIGINT: no new connections, requests under way may finish for ``limits.DRAIN_SECONDS``, then exit 0.
   A second signal ends them at once.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable

from pq_registry.format.instant import utc_now
from pq_registry.server.app import create_app
from pq_registry.server.config import ServerConfig
from pq_registry.server.listening import Announce, Server, bind, make_server, url_of
from pq_registry.server.logs import configure
from pq_registry.service.ledger import LogSetup
from pq_registry.service.registry import Registry

__all__ = ["Announce", "Server", "bind", "make_server", "serve", "url_of"]


def serve(config: ServerConfig, log_setup: Callable[[ServerConfig], LogSetup], announce: Announce) -> None:
    """Serve until a signal.

    Args:
        config: the service's settings.
        log_setup: answers the log's keys, policy and witnesses; asked once the address is taken: it may make keys.
        announce: where the ready line and the first admin token go, once each.

    Raises:
        PqregError: if the service cannot start.
    """
    configure(sys.stdout, config.log_level)
    listener = bind(config.host, config.port)
    with contextlib.closing(listener):
        registry = Registry.open(config.stores, utc_now, log=log_setup(config))
        if registry.first_token is not None:
            announce(f"pqreg: admin token (shown once, also in {config.data}/admin.token): {registry.first_token}")
            registry.first_token = None
        url = url_of(listener)
        server = make_server(
            create_app(registry, config), lambda: announce(f"pqreg: serving on {url} data {config.data}")
        )
        server.run(sockets=[listener])
