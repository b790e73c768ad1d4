"""A local stand-in of S3, with one bucket."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

CODE = """
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(port=0)
server.start()
print(server.get_host_and_port()[1], flush=True)
input()
"""


@contextmanager
def stand_in() -> Iterator[str]:
    """Run it in a process of its own: delta-rs waits for an answer without letting other threads run."""
    pytest.importorskip("moto.server")
    command = [sys.executable, "-c", CODE]
    quiet = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, text=True, **quiet) as process:  # type: ignore[call-overload]
        lines = iter(process.stdout.readline, "")
        port = next(line for line in lines if line.strip().isdecimal()).strip()
        httpx.put(f"http://127.0.0.1:{port}/bucket").raise_for_status()
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()


@contextmanager
def reached(address: str) -> Iterator[None]:
    """Have object storage be looked for at an address."""
    settings = {
        "AWS_ENDPOINT_URL": address,
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "key-of-the-maker",
        "AWS_SECRET_ACCESS_KEY": "secret-of-the-maker",
        "AWS_REGION": "us-east-1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        yield
