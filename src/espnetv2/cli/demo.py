"""`espnetv2 demo`: the web page."""

from __future__ import annotations

import logging
import sys
import threading
import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from espnetv2.extras import require


def demo(
    host: Annotated[
        str, typer.Option(help="Address to listen at; 0.0.0.0 lets the whole network in.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any that is free.")] = 7860,
    weights: Annotated[
        str | None,
        typer.Option(metavar="NAME_OR_FILE", help="Network that the page shows first."),
    ] = None,
    runs: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Run of `espnetv2 train`, or a folder of them."),
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads of an engine.")] = None,
    queue: Annotated[int, typer.Option(min=1, help="Requests that may wait.")] = 64,
    open_: Annotated[bool, typer.Option("--open", help="Open it in a browser.")] = False,
) -> None:
    """Show the networks as a web page: pictures, clips, a camera, a look inside, own runs.

    Works offline, with the networks whose weights are on this machine. Ctrl-C ends it.
    """
    for package in ("fastapi", "uvicorn", "python_multipart"):
        require(package, extra="demo")

    from espnetv2.demo.serve import serve
    from espnetv2.demo.settings import Settings

    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    settings = Settings(host=host, weights=weights, runs=runs, threads=threads, waiting=queue)

    def say(address: str) -> None:
        print(f"espnetv2 demo at {address} (Ctrl-C ends it)", flush=True)
        if not settings.hosts:
            sys.stderr.write(f"{host} is open to the network: anyone who reaches it may use it\n")
        if open_:
            threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()

    try:
        serve(settings, port, say=say)
    except KeyboardInterrupt:
        sys.stderr.write("ended\n")
