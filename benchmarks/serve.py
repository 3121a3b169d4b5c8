"""What does a server cost, and what does it bear? Against the same backend in this process, over this computer's loop.

    python benchmarks/serve.py [--bundle BUNDLE] [--repeats 5] [--clients 1 4 8] [--device cpu]

The server is a process of its own. Printed are medians: seconds an image by `Generator` here and by `RemoteBackend`,
their ratio, seconds to the first scale and to the image by streaming, and images a second of several clients at once,
each of whom streams one image after the other.
"""

from __future__ import annotations

import argparse
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from statistics import median

import numpy as np
from generate import named

from medvar_engine.backends.onnx import OnnxBackend
from medvar_engine.bundle.read import find_bundle, read_bundle
from medvar_engine.conditions import Condition
from medvar_engine.errors import MedvarError
from medvar_engine.generate.generator import Generator
from medvar_engine.remote.connection import Server
from medvar_engine.remote.remote_backend import RemoteBackend
from medvar_engine.request import Request


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", help="folder or name (default: the first that ships)")
    parser.add_argument("--repeats", type=int, default=5, help="runs of which the median is given (default 5)")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 8], help="clients at once (default 1 4 8)")
    parser.add_argument("--device", default="cpu", help="where the networks run (default cpu)")
    options = parser.parse_args()
    bundle = read_bundle(find_bundle(options.bundle))
    local = Generator(OnnxBackend(bundle, device=options.device))
    with server(str(bundle.path), options.device) as address:
        remote, asked = Generator(RemoteBackend(Server(address))), named(bundle.labels)
        print(f"{bundle.name}, {remote.backend.info.provider}")
        for batch in (1, 8):
            here, there = [], []
            for seed in range(options.repeats + 1):  # in turn, for the machine may be busy for a while
                requests = [
                    Request(asked, 1000 * batch + 10 * seed + i, sampling=bundle.sampling) for i in range(batch)
                ]
                taken, one = timed(local, requests)
                here.append(taken / batch)
                taken, other = timed(remote, requests)
                there.append(taken / batch)
                assert np.array_equal(one, other)
            one_here, one_there = median(here[1:]), median(there[1:])  # the first warms up
            ratio = median(b / a for a, b in zip(here[1:], there[1:], strict=True))
            print(f"batch {batch}: here {one_here:.3f} s, server {one_there:.3f} s an image, ratio {ratio:.3f}")
        streams = [streamed(address, asked, seed) for seed in range(options.repeats)]
        first, whole = (median(times) for times in zip(*streams, strict=True))
        print(f"streamed: first scale after {first:.3f} s, image after {whole:.3f} s")
        for clients in options.clients:
            rates = [rate(address, asked, clients, 2) for _ in range(options.repeats + 1)]
            print(f"{clients} clients: {median(rates[1:]):.2f} images a second")


def timed(generator: Generator, requests: list[Request]) -> tuple[float, np.ndarray]:
    """Seconds that the images take, and the images."""
    begin = time.perf_counter()
    images = generator.image(generator.finish(generator.start(requests)))
    return time.perf_counter() - begin, images


def streamed(address: str, asked: Condition, seed: int) -> tuple[float, float]:
    """Seconds to the first scale of one image, and to the image."""
    begin, times = time.perf_counter(), []
    for _ in Server(address).stream("generate", {"requests": [{"condition": asked.to_dict(), "seed": seed}]}):
        times.append(time.perf_counter() - begin)
    return times[0], times[-1]


def several(address: str, asked: Condition, images: int, client: int) -> None:
    """So many images of one client, one after the other."""
    for i in range(images):
        streamed(address, asked, 100 * client + i)


def rate(address: str, asked: Condition, clients: int, images: int) -> float:
    """Images a second of so many clients, each of whom streams so many images."""
    begin = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        for _ in pool.map(partial(several, address, asked, images), range(clients)):
            pass
    return clients * images / (time.perf_counter() - begin)


@contextmanager
def server(bundle: str, device: str) -> Iterator[str]:
    """A server in another process, and its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    call = [sys.executable, "-m", "medvar_engine.cli", "serve", "--bundle", bundle, "--device", device]
    process = subprocess.Popen([*call, "--port", str(port)])
    address = f"http://127.0.0.1:{port}"
    try:
        while True:
            try:
                Server(address).get_json("model")
                break
            except MedvarError:
                if process.poll() is not None:
                    raise
                time.sleep(0.1)
        yield address
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    main()
