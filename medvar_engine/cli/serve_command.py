"""``medvar serve``: runs the networks of a bundle for other computers."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated, Literal

import typer

from medvar_engine.cli.console import needs, print_message


def serve(
    bundle: Annotated[str | None, typer.Option(help="Folder or name of a bundle; the shipped one by default.")] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; every address except the loopback address needs a token.")
    ] = ("127.0.0.1"),
    port: Annotated[int, typer.Option(help="Port to listen on.", min=1, max=65535)] = 8765,
    name: Annotated[
        list[str] | None, typer.Option(help="Host name that clients use, if it differs from --host; repeat for more.")
    ] = None,
    token_file: Annotated[
        Path | None, typer.Option(help="File with the token in its first line, which clients must send.")
    ] = None,
    certificate: Annotated[Path | None, typer.Option(help="PEM file of the certificate, for https.")] = None,
    key: Annotated[Path | None, typer.Option(help="PEM file with the key of the certificate.")] = None,
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="Device that runs the networks.")] = "auto",
    rows: Annotated[int, typer.Option(help="Largest number of images in one request.", min=1)] = 16,
    body: Annotated[int, typer.Option(help="Largest size of one request in MB.", min=1)] = 32,
    waiting: Annotated[int, typer.Option(help="Largest number of waiting jobs.", min=1)] = 16,
    rate: Annotated[int, typer.Option(help="Requests per minute of one client.", min=1)] = 6000,
    seconds: Annotated[int, typer.Option(help="Largest duration of a job in seconds.", min=1)] = 120,
    cache: Annotated[int, typer.Option(help="Size of the cache of keys and values in MB.", min=1)] = 1024,
    memory: Annotated[int, typer.Option(help="Memory for requests and answers of all clients in MB.", min=1)] = 512,
    copy_policy: Annotated[
        Literal["withhold", "flag", "off"] | None,
        typer.Option(
            help="What is done with whole images that may be copies of training slices; withhold by default, if the "
            "bundle has a training index."
        ),
    ] = None,
) -> None:
    """Run the networks of a bundle for clients on other computers: plugin, `medvar generate --server`, scripts."""
    from medvar_engine.backends.onnx import OnnxBackend
    from medvar_engine.bundle.read import open_bundle
    from medvar_engine.errors import MedvarError
    from medvar_engine.remote.connection import read_token

    try:
        from medvar_engine.serve.limits import Limits
        from medvar_engine.serve.run_server import is_loopback, make_server
    except ImportError as error:
        raise needs("serve", error) from error

    token = read_token(token_file) if token_file else None
    model = open_bundle(bundle)
    model.verify()  # so that damage is found now, and not by a client
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
    print_message(
        f"{model.name} on {backend.info.provider} at {scheme}://{f'[{host}]' if ':' in host else host}:{port}"
    )
    if not certificate and not is_loopback(host):
        print_message(
            "Without --certificate and --key, everything that is sent, including the token, can be read in the network."
        )
    # asyncio warns about every piece that is sent to a client that has disconnected.
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    try:
        server.run()
    except SystemExit as error:  # uvicorn exits if it cannot listen; its log has the reason
        raise MedvarError(f"Cannot listen on {host}, port {port}. Choose another --port or --host.") from error
