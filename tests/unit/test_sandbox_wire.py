"""The host's end of a sandbox's socket against a server that lies: every waiter gets a SandboxError, whatever comes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket

import pytest

from trunkline.errors import SandboxError
from trunkline.sandbox.wire import MAX_BODY_BYTES, MAX_HEAD_BYTES, Refused, ServerLink


def frame(head: object, body: bytes = b"") -> bytes:
    """As the server inside sends it; bytes are taken for the head's text."""
    text = head if isinstance(head, bytes) else json.dumps(head).encode()
    return len(text).to_bytes(4, "big") + len(body).to_bytes(4, "big") + text + body


async def told(reply: bytes, *, hangs_up: bool = False) -> list[object]:
    """What two requests get when the server answers the first with these bytes: their errors or answers."""
    ours, theirs = socket.socketpair()
    with theirs:
        theirs.setblocking(False)
        link = await ServerLink.over(ours)
        waiters = [asyncio.ensure_future(link.request("run")), asyncio.ensure_future(link.request("read"))]
        with contextlib.suppress(OSError):
            await asyncio.get_running_loop().sock_sendall(theirs, reply)
        if hangs_up:
            theirs.shutdown(socket.SHUT_WR)
        answers = await asyncio.wait_for(asyncio.gather(*waiters, return_exceptions=True), 10)
        with contextlib.suppress(SandboxError):
            answers.append(await link.request("after"))
        await link.close()
        return answers


GARBAGE = {
    "an oversized head": (MAX_HEAD_BYTES + 1).to_bytes(4, "big") + bytes(4) + b"{}",
    "an oversized body": (2).to_bytes(4, "big") + (MAX_BODY_BYTES + 1).to_bytes(4, "big") + b"{}",
    "all bits set": b"\xff" * 64,
    "an empty head": frame(b""),
    "no JSON": frame(b"{nonsense"),
    "no UTF-8": frame(b'{"id": "\xff\xfe"}'),
    "a lone surrogate as number": frame(b'{"id": "\\ud800"}'),
    "a number": frame(7),
    "null": frame(None),
    "a string": frame("id"),
    "a list": frame([["id", 1]]),
    "no id": frame({"status": 0}),
    "a text as id": frame({"id": "1"}),
    "a fraction as id": frame({"id": 1.0}),
    "a boolean as id": frame({"id": True}),
    "a list as id": frame({"id": [1]}),
    "an endless number": frame(b'{"id": ' + b"1" * 100_000 + b"}"),
    "deep nesting": frame(b"[" * 1_000_000),
    "deep objects": frame(b'{"a":' * 500_000),
    "an error without its number": frame({"id": 1, "error": "no"}),
    "an error whose number is a text": frame({"id": 1, "error": "no", "errno": "1"}),
    "an error whose number is a boolean": frame({"id": 1, "error": "no", "errno": True}),
    "an error that is no text": frame({"id": 1, "error": {"a": 1}, "errno": 1}),
}


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE)
def test_garbage_gives_every_waiter_a_sandbox_error(garbage):
    answers = asyncio.run(told(garbage))
    assert [type(answer) for answer in answers] == [SandboxError, SandboxError]
    assert "sent what is no answer" in str(answers[0])


@pytest.mark.parametrize("cut", [b"", b"\0\0\0", frame({"id": 1})[:12], frame({"id": 1}, b"body")[:-1]])
def test_a_server_that_hangs_up_in_the_middle_gives_every_waiter_a_sandbox_error(cut):
    answers = asyncio.run(told(cut, hangs_up=True))
    assert [(type(answer), str(answer)) for answer in answers] == [(SandboxError, "the sandbox has ended")] * 2


def test_answers_to_requests_that_nobody_made_are_dropped():
    stray = frame({"id": 99}, b"x") + frame({"id": -1}) + frame({"id": 10**30})
    answers = asyncio.run(told(stray + frame({"id": 2}, b"two") + frame({"id": 1}, b"one") + frame({"id": 1}, b"again"), hangs_up=True))
    assert answers == [({"id": 1}, b"one"), ({"id": 2}, b"two")]


def test_a_refusal_reaches_only_the_request_it_answers():
    answers = asyncio.run(told(frame({"id": 1, "errno": 2, "error": "No such file"}) + frame({"id": 2}, b"two"), hangs_up=True))
    assert isinstance(answers[0], Refused) and (answers[0].errno, str(answers[0])) == (2, "No such file")
    assert answers[1] == ({"id": 2}, b"two")
