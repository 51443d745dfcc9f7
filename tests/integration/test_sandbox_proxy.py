"""The proxy door: listed hosts are reached by unmodified clients in a sandbox without network, and nothing else is."""

from __future__ import annotations

import asyncio
import json
import sys
import textwrap
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from trunkline.asgi import serve_port
from trunkline.errors import ConfigError
from trunkline.sandbox.config import SandboxConfig
from trunkline.sandbox.isolated import IsolatedSandboxes
from trunkline.sandbox.proxy import AllowedHosts, serve_proxy
from trunkline.types import Command, Door


@asynccontextmanager
async def web() -> AsyncIterator[int]:
    """A server on loopback that says what it was asked."""

    async def says(request):
        return JSONResponse({"url": str(request.url), "body": (await request.body()).decode(), "names": sorted(request.headers)})

    serving = await serve_port(Starlette(routes=[Route("/{rest:path}", says, methods=["GET", "POST"])]))
    try:
        yield serving.port
    finally:
        await serving.stop()


def test_entries_are_a_host_with_or_without_its_port():
    allowed = AllowedHosts.parse(["PyPI.org", "mirror.example:8080", "[::1]:81"])
    assert allowed.allows("pypi.org", 443) and allowed.allows("PYPI.ORG", 80) and allowed.allows("::1", 81)
    assert not allowed.allows("pypi.org", 22) and not allowed.allows("files.pypi.org", 443) and not allowed.allows("mirror.example", 80)
    for entry in ("*.pypi.org", "http://pypi.org", "host:port", "host:0", ":80", ""):
        with pytest.raises(ConfigError, match="allowed_hosts"):
            AllowedHosts.parse([entry])


def test_clients_inside_reach_what_is_listed_and_are_refused_the_rest(tmp_path: Path):
    code = """
        import json, sys, urllib.error, urllib.request, httpx
        port, other = sys.argv[1:]
        seen = [json.load(urllib.request.urlopen(f"http://127.0.0.1:{port}/a?b=c", b"body"))]
        tunnel = httpx.Client(proxy="http://127.0.0.1:8702", trust_env=False)
        seen.append(tunnel.get(f"http://127.0.0.1:{port}/again").json())
        for url in (f"http://127.0.0.1:{other}/", "http://192.0.2.1/", "http://localhost:" + port):
            try:
                urllib.request.urlopen(url)
            except urllib.error.HTTPError as error:
                seen.append(error.code)
        print(json.dumps(seen))
    """
    said: list[str] = []

    async def main():
        async with web() as port, web() as other, serve_proxy(AllowedHosts.parse([f"127.0.0.1:{port}"]), tmp_path / "p", said.append):
            async with IsolatedSandboxes.open(SandboxConfig()) as sandboxes:
                sandbox = await sandboxes.create(await sandboxes.prepare(None), doors=[Door("proxy", 8702, tmp_path / "p")])
                argv = (sys.executable, "-c", textwrap.dedent(code), str(port), str(other))
                environment = {"http_proxy": "http://127.0.0.1:8702"}
                result = await sandbox.run(Command(argv, environment=environment, timeout_s=120))
            assert result.status == 0, result.stderr.decode()
            first, again, *codes = json.loads(result.stdout)
            assert (first["url"], first["body"]) == (f"http://127.0.0.1:{port}/a?b=c", "body")
            assert again["url"].endswith("/again") and "proxy-connection" not in first["names"]
            assert codes == [403, 403, 403]
            assert said[0] == f"POST 127.0.0.1:{port}" and said[-1].endswith("refused: not in sandbox.allowed_hosts")

    asyncio.run(main())
    assert not (tmp_path / "p").exists()


def test_a_tunnel_carries_bytes_both_ways_and_only_to_what_is_listed(tmp_path: Path):
    async def main():
        async with web() as port, serve_proxy(AllowedHosts.parse([f"127.0.0.1:{port}"]), tmp_path / "p", lambda _: None):

            async def ask(target: str, then: bytes = b"") -> bytes:
                reader, writer = await asyncio.open_unix_connection(tmp_path / "p")
                writer.write(f"CONNECT {target} HTTP/1.1\r\nhost: x\r\n\r\n".encode() + then)
                answer = await asyncio.wait_for(reader.read(), 20)
                writer.close()
                return answer

            through = await ask(f"127.0.0.1:{port}", b"GET /in HTTP/1.1\r\nhost: in\r\nconnection: close\r\n\r\n")
            assert through.startswith(b"HTTP/1.1 200 Connection established\r\n\r\nHTTP/1.1 200") and b"http://in/in" in through
            assert (await ask(f"127.0.0.1:{port + 1}")).startswith(b"HTTP/1.1 403")
            assert (await ask("127.0.0.1")).startswith(b"HTTP/1.1 403") and (await ask("")).startswith(b"HTTP/1.1 400")

    asyncio.run(main())


@pytest.mark.parametrize(
    "sent", [b"\x00\xff\r\n\r\n", b"GET /no-host HTTP/1.1\r\nhost: x\r\n\r\n", b"GET http://a:b/ HTTP/1.1\r\nhost: x\r\n\r\n"]
)
def test_what_is_no_proxy_request_is_answered_400(tmp_path: Path, sent: bytes):
    async def main():
        async with serve_proxy(AllowedHosts.parse(["pypi.org"]), tmp_path / "p", lambda _: None):
            reader, writer = await asyncio.open_unix_connection(tmp_path / "p")
            writer.write(sent + b"\r\n\r\n")
            assert (await asyncio.wait_for(reader.read(), 20)).startswith(b"HTTP/1.1 400")
            writer.close()

    asyncio.run(main())


def test_a_host_that_cannot_be_reached_is_answered_502(tmp_path: Path):
    async def main():
        async with serve_proxy(AllowedHosts.parse(["127.0.0.1:9"]), tmp_path / "p", lambda _: None):
            reader, writer = await asyncio.open_unix_connection(tmp_path / "p")
            writer.write(b"GET http://127.0.0.1:9/ HTTP/1.1\r\nhost: x\r\n\r\n")
            assert (await reader.read()).startswith(b"HTTP/1.1 502")
            writer.close()

    asyncio.run(main())
