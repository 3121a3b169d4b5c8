"""What does a server cost, and what does it bear? Against the same backend in this process, over this computer's loop.

    python benchmarks/serve.py [--bundle BUNDLE] [--repeats 5] [--clients 4] [--device cpu]

The server is a process of its own. Printed are medians: seconds an image by `Generator` here and by `RemoteBackend`,
their ratio, seconds to the first scale and to the image by streaming, and images a second of several clients at once.
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
from statistics import median

import numpy as np

from medvar_engine.backends.onnx import OnnxBackend
from medvar_engine.backends.remote import RemoteBackend
from medvar_engine.backends.server import Server
from medvar_engine.bundle import find_bundle, read_bundle
from medvar_engine.errors import MedvarError
from medvar_engine.generator import Generator
from medvar_engine.request import Request


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", help="folder or name (default: the first that ships)")
    parser.add_argument("--repeats", type=int, default=5, help="runs of which the median is given (default 5)")
    parser.add_argument("--clients", type=int, default=4, help="clients at once (default 4)")
    parser.add_argument("--device", default="cpu", help="where the networks run (default cpu)")
    options = parser.parse_args()
    bundle = read_bundle(find_bundle(options.bundle))
    local = Generator(OnnxBackend(bundle, device=options.device))
    with server(str(bundle.path), options.device) as address:
        remote = Generator(RemoteBackend(Server(address)))
        print(f"{bundle.name}, {remote.backend.info.provider}")
        for batch in (1, 8):
            here, there = [], []
            for seed in range(options.repeats + 1):  # in turn, for the machine may be busy for a while
                requests = [Request(seed=1000 * batch + 10 * seed + i, sampling=bundle.sampling) for i in range(batch)]
                taken, one = timed(local, requests)
                here.append(taken / batch)
                taken, other = timed(remote, requests)
                there.append(taken / batch)
                assert np.array_equal(one, other)
            one_here, one_there = median(here[1:]), median(there[1:])  # the first warms up
            ratio = median(b / a for a, b in zip(here[1:], there[1:], strict=True))
            print(f"batch {batch}: here {one_here:.3f} s, server {one_there:.3f} s an image, ratio {ratio:.3f}")
        streams = [streamed(address, seed) for seed in range(options.repeats)]
        first, whole = (median(times) for times in zip(*streams, strict=True))
        print(f"streamed: first scale after {first:.3f} s, image after {whole:.3f} s")
        begin = time.perf_counter()
        jobs = options.clients * options.repeats
        with ThreadPoolExecutor(options.clients) as pool:
            latencies = sorted(first for first, _ in pool.map(lambda seed: streamed(address, seed), range(jobs)))
        rate = jobs / (time.perf_counter() - begin)
        print(
            f"{options.clients} clients: {rate:.2f} images a second, first scale after {median(latencies):.3f} s, "
            f"{latencies[-1]:.3f} s at worst"
        )


def timed(generator: Generator, requests: list[Request]) -> tuple[float, np.ndarray]:
    """Seconds that the images take, and the images."""
    begin = time.perf_counter()
    images = generator.image(generator.finish(generator.start(requests)))
    return time.perf_counter() - begin, images


def streamed(address: str, seed: int) -> tuple[float, float]:
    """Seconds to the first scale of one image, and to the image."""
    begin, times = time.perf_counter(), []
    for _ in Server(address).stream("generate", {"requests": [{"seed": seed}]}):
        times.append(time.perf_counter() - begin)
    return times[0], times[-1]


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
