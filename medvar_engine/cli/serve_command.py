"""``medvar serve``: a bundle for those whose GPU is elsewhere."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated, Literal

import typer

from medvar_engine.cli.console import needs, tell


def serve(
    bundle: Annotated[str | None, typer.Option(help="Folder or name of a bundle; the shipped one by default.")] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; any but this computer's own needs a token.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(help="Port to listen on.", min=1, max=65535)] = 8765,
    name: Annotated[
        list[str] | None, typer.Option(help="A name that clients call this computer by, when not --host.")
    ] = None,
    token_file: Annotated[Path | None, typer.Option(help="File whose first line clients must know.")] = None,
    certificate: Annotated[Path | None, typer.Option(help="PEM file, to speak https.")] = None,
    key: Annotated[Path | None, typer.Option(help="PEM file with the certificate's key.")] = None,
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="Where to run.")] = "auto",
    rows: Annotated[int, typer.Option(help="Images in one request.", min=1)] = 16,
    body: Annotated[int, typer.Option(help="MB of one request.", min=1)] = 32,
    waiting: Annotated[int, typer.Option(help="Jobs that may wait for the one that runs.", min=1)] = 16,
    rate: Annotated[int, typer.Option(help="Requests a minute of one client.", min=1)] = 6000,
    seconds: Annotated[int, typer.Option(help="Seconds that a job may take.", min=1)] = 120,
    cache: Annotated[int, typer.Option(help="MB of keys and values to remember.", min=1)] = 1024,
    memory: Annotated[int, typer.Option(help="MB of requests and answers, of all clients together.", min=1)] = 512,
    copy_policy: Annotated[
        Literal["withhold", "flag", "off"] | None,
        typer.Option(
            help="What is done with whole images that may be copies of training slices; withhold by default, if the "
            "bundle has a training index."
        ),
    ] = None,
) -> None:
    """Run a bundle's networks for clients elsewhere: the plugin, `medvar generate --server`, and scripts."""
    from medvar_engine.backends.onnx import OnnxBackend
    from medvar_engine.bundle.read import find_bundle, read_bundle
    from medvar_engine.errors import MedvarError
    from medvar_engine.remote.connection import read_token

    try:
        from medvar_engine.serve.limits import Limits
        from medvar_engine.serve.run_server import is_loopback, make_server
    except ImportError as error:
        raise needs("serve", error) from error

    token = read_token(token_file) if token_file else None
    model = read_bundle(find_bundle(bundle))
    model.verify()  # damage shows now, and not in front of a client
    backend = OnnxBackend(model, device=device)
    sizes = {"body": body * 2**20, "cache": cache * 2**20, "memory": memory * 2**20}
    limits = Limits(rows, waiting=waiting, rate=rate, seconds=seconds, **sizes)
    server = make_server(
        model,
        backend,
        limits,
        host=host,
        port=port,
        token=token,
        names=tuple(name or ()),
        certificate=certificate,
        key=key,
        copy_policy=copy_policy,
    )
    scheme = "https" if certificate else "http"
    tell(f"{model.name} on {backend.info.provider} at {scheme}://{f'[{host}]' if ':' in host else host}:{port}")
    if not certificate and not is_loopback(host):
        tell("Without --certificate and --key, all that is sent, the token too, can be read on the way.")
    # asyncio warns at every piece that is sent to a client which has left.
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    try:
        server.run()
    except SystemExit as error:  # uvicorn's way to say that it cannot listen; its log says why
        raise MedvarError(f"Cannot listen on {host}, port {port}. Choose another --port or --host.") from error
