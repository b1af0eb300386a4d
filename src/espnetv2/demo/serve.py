"""The process: an address is taken first, so that one in use is a line and not a traceback."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable

import uvicorn

from espnetv2.demo.app import create_app
from espnetv2.demo.settings import Settings
from espnetv2.errors import UserError


def serve(settings: Settings, port: int, *, say: Callable[[str], None]) -> None:
    """Run until Ctrl-C or a signal.

    Args:
        settings: Of the server.
        port: 0 takes any that is free.
        say: Called with the address once it answers.

    Raises:
        UserError: The address is in use or cannot be had.
    """
    taken = listen(settings.host, port)
    with taken:
        app = create_app(settings)
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=3,
            proxy_headers=False,
        )
        say(address(settings.host, taken.getsockname()[1]))
        uvicorn.Server(config).run(sockets=[taken])


def listen(host: str, port: int) -> socket.socket:
    """A socket that connections queue at from now on.

    Raises:
        UserError: The address is in use, forbidden or not of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    taken = socket.socket(family, socket.SOCK_STREAM)
    try:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind((host, port))
        taken.listen(256)
    except OSError as error:
        taken.close()
        advice = "choose another with --port, or 0 for any that is free"
        if error.errno not in (errno.EADDRINUSE, errno.EACCES):
            advice = "choose 127.0.0.1 or an address of this machine with --host"
        reason = error.strerror or str(error)
        raise UserError(f"cannot listen at {host}:{port} ({reason}); {advice}") from error
    return taken


def address(host: str, port: int) -> str:
    """What to open in a browser."""
    name = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{name}:{port}/"
