"""Doors of an isolated sandbox, run for real: what a task lists is reached at 127.0.0.1, nothing else is."""

from __future__ import annotations

import asyncio
import hashlib
import http.server
import json
import os
import socketserver
import threading
import time
from contextlib import asynccontextmanager, contextmanager

import pytest

from tests.integration.sandbox_scene import door_to, open_folder, printed, python, python_command
from tests.integration.test_gateway_http import QUESTION, RENDERER, CountingLog, ScriptedEngine
from trunkline.asgi import serve_uds
from trunkline.gateway.app import build_app
from trunkline.gateway.gateway import Gateway
from trunkline.gateway.sampling import SamplingHold
from trunkline.gateway.sessions import SessionBudget
from trunkline.types import Door, Message

pytestmark = pytest.mark.anyio


class Upside(http.server.BaseHTTPRequestHandler):
    """Answers a POST with its body turned round."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))[::-1]
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self):
        return "a Unix socket"

    def log_message(self, *words):
        pass


@contextmanager
def http_door():
    """A door with a web server behind it, from the standard library."""
    with open_folder() as folder:
        socketserver.UnixStreamServer.request_queue_size = 128
        with socketserver.ThreadingUnixStreamServer(str(folder / "door"), Upside) as server:
            (folder / "door").chmod(0o666)
            threading.Thread(target=server.serve_forever, daemon=True).start()
            yield Door("web", 8700, folder / "door")
            server.shutdown()


@asynccontextmanager
async def boxed(sandboxes, *doors):
    """An empty sandbox with doors."""
    box = await sandboxes.create(await sandboxes.prepare(None), doors=doors)
    try:
        yield box
    finally:
        await box.destroy()


POST = """
import sys, urllib.request
def post(body, port=8700):
    return urllib.request.urlopen(f"http://127.0.0.1:{port}/", data=body, timeout=60).read()
"""


async def test_a_web_server_behind_a_door_is_reached_at_its_port(sandboxes):
    with http_door() as door:
        async with boxed(sandboxes, door) as box:
            assert await printed(box, POST + "print(post(b'abc').decode())") == "cba"
            assert box.acts[0].detail.endswith("doors: web")


async def test_two_megabytes_pass_a_door_both_ways(sandboxes):
    content = os.urandom(2_000_000)
    code = POST + "import hashlib\nprint(hashlib.sha256(post(sys.stdin.buffer.read())).hexdigest())"
    with http_door() as door:
        async with boxed(sandboxes, door) as box:
            assert await printed(box, code, stdin=content) == hashlib.sha256(content[::-1]).hexdigest()


async def test_fifty_connections_at_once_pass_a_door(sandboxes):
    code = POST + "from concurrent.futures import ThreadPoolExecutor\nwith ThreadPoolExecutor(50) as pool:\n"
    code += "    print(all(list(pool.map(lambda i: post(b'%d' % i * 5000) == (b'%d' % i * 5000)[::-1], range(100, 250)))))"
    with http_door() as door:
        async with boxed(sandboxes, door) as box:
            assert await printed(box, code) == "True"


async def test_a_client_that_ends_its_side_still_gets_the_answer(sandboxes):
    async def count(reader, writer):
        writer.write(b"%d bytes" % len(await reader.read()))
        writer.close()

    code = """
        import socket
        with socket.create_connection(("127.0.0.1", 8700)) as connection:
            connection.sendall(b"x" * 100_000)
            connection.shutdown(socket.SHUT_WR)
            print(connection.makefile().read())
    """
    async with door_to(count) as door, boxed(sandboxes, door) as box:
        assert await printed(box, code) == "100000 bytes"


async def test_a_server_that_ends_its_side_still_reads_what_comes(sandboxes):
    heard = asyncio.get_running_loop().create_future()

    async def greet(reader, writer):
        writer.write(b"go")
        writer.write_eof()
        heard.set_result(await reader.read())
        writer.close()

    code = """
        import socket
        with socket.create_connection(("127.0.0.1", 8700)) as connection:
            greeting = connection.makefile().read()
            connection.sendall(greeting.encode() * 50_000)
    """
    async with door_to(greet) as door, boxed(sandboxes, door) as box:
        await printed(box, code)
        assert await asyncio.wait_for(heard, 20) == b"go" * 50_000


async def test_a_door_whose_server_is_gone_closes_the_connection(sandboxes):
    async def never(reader, writer):
        writer.close()

    async with door_to(never) as door:
        await_gone = await sandboxes.create(await sandboxes.prepare(None), doors=[door])
    code = "import socket\nprint(socket.create_connection(('127.0.0.1', 8700), 20).recv(10))"
    assert await printed(await_gone, code) == "b''"
    await await_gone.destroy()


async def test_a_port_without_a_door_refuses(sandboxes):
    code = "import socket\ntry: socket.create_connection(('127.0.0.1', 8701), 20)\nexcept ConnectionRefusedError: print('refused')"
    with http_door() as door:
        async with boxed(sandboxes, door) as box:
            assert await printed(box, code) == "refused"


async def test_two_doors_lead_to_their_own_servers(sandboxes):
    async def one(reader, writer):
        writer.write(b"one")
        writer.close()

    async def two(reader, writer):
        writer.write(b"two")
        writer.close()

    code = "import socket\nfor port in (8700, 8701): print(socket.create_connection(('127.0.0.1', port)).makefile().read())"
    async with door_to(one) as first, door_to(two, port=8701) as second, boxed(sandboxes, first, second) as box:
        assert await printed(box, code) == "one\ntwo"


async def test_a_fork_has_the_doors_it_is_given_and_not_its_parents(sandboxes):
    with http_door() as door:
        async with boxed(sandboxes, door) as box:
            closed, opened = await sandboxes.fork(box), await sandboxes.fork(box, doors=[Door("other", 9000, door.socket)])
            assert "Connection refused" in (await python(closed, POST + "post(b'abc')")).stderr.decode()
            assert await printed(opened, POST + "print(post(b'abc', 9000).decode())") == "cba"
            await asyncio.gather(closed.destroy(), opened.destroy())


async def test_a_flood_of_connections_to_a_door_leaves_room_for_commands(sandboxes):
    async def hold(reader, writer):
        await reader.read()

    flood = """
        import socket, time
        held = []
        for _ in range(900):
            held.append(socket.create_connection(("127.0.0.1", 8700)))
        print("flooded", flush=True)
        time.sleep(600)
    """
    async with door_to(hold) as door, boxed(sandboxes, door) as box:
        service = await box.start(python_command(flood))
        deadline = time.monotonic() + 60
        while b"flooded" not in (await service.peek())[1] and time.monotonic() < deadline:
            await asyncio.sleep(0.1)
        assert await printed(box, "print('fine')") == "fine"
        await service.stop()


# --- keys -------------------------------------------------------------------------------------------------------------

ASK = """
    import json, sys, time, urllib.error, urllib.request
    key, question = sys.argv[1:]
    request = urllib.request.Request("http://127.0.0.1:8700/v1/chat/completions", headers={"authorization": f"Bearer {key}"})
    request.add_header("content-type", "application/json")
    body = json.dumps({"model": "any", "messages": json.loads(question)}).encode()
    while True:
        try:
            urllib.request.urlopen(request, body).read()
            print("answered", flush=True)
        except urllib.error.HTTPError as error:
            print(error.code, flush=True)
            break
        time.sleep(0.05)
"""


async def test_a_key_used_on_after_its_session_was_closed_is_refused(sandboxes):
    gateway = Gateway(ScriptedEngine(Message("assistant", "ok")), RENDERER, CountingLog(), model_name="tiny")
    budget = SessionBudget(max_calls=10_000)
    opened, other = (gateway.open_session(episode_id=name, seed=1, hold=SamplingHold(max_tokens=8), budget=budget) for name in "ab")
    with open_folder() as folder:
        serving = await serve_uds(build_app(gateway), folder / "agents", mode=0o666)
        async with boxed(sandboxes, Door("model", 8700, folder / "agents")) as box:
            client = await box.start(python_command(ASK, opened.secret, json.dumps(QUESTION)))
            while b"answered" not in (await client.peek())[1]:
                await asyncio.sleep(0.05)
            await gateway.close_session(opened.session_id)
            while (await client.peek())[0] is None:
                await asyncio.sleep(0.05)
            assert (await client.peek())[1].split()[-1] == b"401"
            assert (await python(box, ASK, opened.secret, json.dumps(QUESTION))).stdout == b"401\n"
            guessed = other.secret[:-1] + ("A" if other.secret[-1] != "A" else "B")
            assert (await python(box, ASK, guessed, json.dumps(QUESTION))).stdout == b"401\n"
        await serving.stop()
