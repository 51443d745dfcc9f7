"""Cases of single calls that go another way: retries, aborts, failures, several samples, limits, other distributions."""

from __future__ import annotations

import asyncio

from trunkline.bench.conformance.scene import CaseUnsupported, Scene, call_text, opening
from trunkline.bench.conformance.wires import CHAT, sse_events

_READ_S = 1.0
_ENGINE_WAIT_S = 10.0


async def retry(scene: Scene) -> None:
    """The same request once more (an SDK's retry after a lost answer): every draw is kept once, and the agent goes on from its answer."""
    first, second = scene.engine.plan(call_text("Paris")), scene.engine.plan("done")
    conversation = opening(CHAT, f"Look. {first.mark}")
    body = CHAT.body(conversation)
    lost = await scene.post(CHAT, body, headers={"x-stainless-retry-count": "0"})
    scene.demand(lost.status == 200, f"answers {lost.status}: {lost.text[:200]}")
    again = await scene.post(CHAT, body, headers={"x-stainless-retry-count": "1"})
    scene.demand(again.status == 200, f"the retry is answered {again.status}: {again.text[:200]}")
    reply = CHAT.read(again.json())
    scene.demand(len(reply.calls) == 1, f"the retry got {reply.calls}")
    answered = scene.draws[-1]
    await scene.ask(CHAT, conversation.plus(*reply.echo, *CHAT.results([(reply.calls[0].call_id, f"2 million {second.mark}")])))
    scene.demand_extension(answered, scene.draws[-1])
    await scene.settle()


async def retry_in_flight(scene: Scene) -> None:
    """A client that gives up on a slow answer and asks again: it gets one, and what was sampled for it is kept once or counted."""
    gate = asyncio.Event()
    first, second = scene.engine.plan(call_text("Paris"), gate=gate), scene.engine.plan("done")
    conversation = opening(CHAT, f"Look. {first.mark}")
    await _leave(scene, CHAT.body(conversation), first.entered)
    again = asyncio.create_task(scene.post(CHAT, CHAT.body(conversation), headers={"x-stainless-retry-count": "1"}))
    await asyncio.sleep(0.2)
    gate.set()
    answer = await again
    scene.demand(answer.status == 200, f"the retry is answered {answer.status}: {answer.text[:200]}")
    reply = CHAT.read(answer.json())
    scene.demand(len(reply.calls) == 1, f"the retry got {reply.calls}")
    await scene.ask(CHAT, conversation.plus(*reply.echo, *CHAT.results([(reply.calls[0].call_id, f"2 million {second.mark}")])))
    earlier = [drawn for drawn in scene.draws[:-1] if scene.draws[-1].prompt_ids[: len(drawn.prompt_ids)] == drawn.prompt_ids]
    scene.demand(bool(earlier), "the next prompt does not begin with the first")
    scene.demand_extension(earlier[-1], scene.draws[-1])
    await scene.settle()


async def abort_waiting(scene: Scene) -> None:
    """A client that leaves while its answer is sampled: what the engine handed out is recorded or counted, and the next call works."""
    gate = asyncio.Event()
    plan = scene.engine.plan("too late", gate=gate)
    await _leave(scene, CHAT.body(opening(CHAT, f"Go on. {plan.mark}")), plan.entered)
    gate.set()
    await _still_works(scene)


async def abort_streaming(scene: Scene) -> None:
    """A client that leaves in the middle of a stream: no token is trained that was not sampled, none is lost unseen."""
    scene.require("stream")
    gate = asyncio.Event()
    plan = scene.engine.plan("one two three four five six", gate=gate)
    await _leave(scene, CHAT.body(opening(CHAT, f"Count. {plan.mark}"), stream=True), plan.entered)
    gate.set()
    await _still_works(scene)


async def _leave(scene: Scene, body: dict[str, object], entered: asyncio.Event) -> None:
    """Sends a request, and goes away _READ_S after the engine has got it."""
    asking = asyncio.create_task(scene.post(CHAT, body))
    arrived = asyncio.create_task(entered.wait())
    await asyncio.wait({asking, arrived}, timeout=_ENGINE_WAIT_S, return_when=asyncio.FIRST_COMPLETED)
    if asking.done():
        answer = asking.result()
        scene.demand(answer.status == 200, f"answers {answer.status} at once: {answer.text[:200]}")
    scene.demand(arrived.done(), "the request never reached the engine")
    await asyncio.sleep(_READ_S)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    await asyncio.sleep(0.2)


async def _still_works(scene: Scene) -> None:
    plan = scene.engine.plan("fine")
    reply = await scene.ask(CHAT, opening(CHAT, f"Still there? {plan.mark}"))
    scene.demand(reply.text == "fine", f"the next call got {reply.text!r}")
    await scene.settle()


async def several_samples(scene: Scene) -> None:
    """n = 3 gives three choices, and three samples in the record."""
    scene.require("n")
    plan = scene.engine.plan("one", "two", "three")
    body = CHAT.body(opening(CHAT, f"Count. {plan.mark}"), n=3)
    answer = await scene.post(CHAT, body)
    if answer.status in (400, 422):
        raise CaseUnsupported(f"n = 3 is refused with {answer.status}: {answer.text[:120]}")
    scene.demand(answer.status == 200, f"answers {answer.status}: {answer.text[:200]}")
    reply = CHAT.read(answer.json())
    texts = sorted([reply.text, *(other.text for other in reply.others)])
    scene.demand(texts == ["one", "three", "two"], f"the agent got {texts}")
    await scene.settle()


async def several_samples_streamed(scene: Scene) -> None:
    """n = 3 as a stream gives three choices, and three samples in the record."""
    scene.require("n")
    scene.require("stream")
    plan = scene.engine.plan("one", "two", "three")
    answer = await scene.post(CHAT, CHAT.body(opening(CHAT, f"Count. {plan.mark}"), n=3, stream=True))
    if answer.status in (400, 422):
        raise CaseUnsupported(f"n = 3 is refused with {answer.status}: {answer.text[:120]}")
    scene.demand(answer.status == 200, f"answers {answer.status}: {answer.text[:200]}")
    reply = CHAT.join(list(sse_events(answer.text)))
    texts = sorted([reply.text, *(other.text for other in reply.others)])
    scene.demand(texts == ["one", "three", "two"], f"the agent got {texts}")
    await scene.settle()


async def stop_strings(scene: Scene) -> None:
    """A stop string ends the answer's text before it; no token behind it is trained."""
    plan = scene.engine.plan("before END after")
    answer = await scene.post(CHAT, CHAT.body(opening(CHAT, f"Speak. {plan.mark}"), stop=["END"]))
    if answer.status in (400, 422):
        raise CaseUnsupported(f"stop is refused with {answer.status}: {answer.text[:120]}")
    scene.demand(answer.status == 200, f"answers {answer.status}: {answer.text[:200]}")
    reply = CHAT.read(answer.json())
    scene.demand(
        "END" not in reply.text and "after" not in reply.text, f"stop was ['END'], the agent got {reply.text!r} without a word about it"
    )
    scene.demand(reply.text.startswith("before"), f"the agent got {reply.text!r}")
    record = await scene.settle()
    for row in record.rows:
        trained = [token for token, is_trained in zip(row.token_ids, row.trained, strict=True) if is_trained]
        scene.demand("after" not in scene.engine.model.text(trained), "tokens behind the stop string are trained")


async def length_cut(scene: Scene) -> None:
    """A completion cut by max_tokens says so to the agent, and its tokens are trained."""
    plan = scene.engine.plan("one two three four five six seven")
    reply = await scene.ask(CHAT, opening(CHAT, f"Count. {plan.mark}"), max_tokens=6)
    if scene.draws[-1].finish_reason != "length":
        raise CaseUnsupported("the client's max_tokens does not reach the sampler, so nothing was cut")
    scene.demand(reply.finish == "length", f"finish_reason is {reply.finish!r}")
    record = await scene.settle()
    trained = sum(sum(row.trained) for row in record.rows)
    scene.demand(trained == 6, f"6 tokens were sampled, {trained} are trained")


async def continued_after_cut(scene: Scene) -> None:
    """An agent that goes on after a cut completion: the cut turn stays as sampled, its missing end is not trained."""
    plan, second = scene.engine.plan("one two three four five six seven"), scene.engine.plan("done")
    conversation = opening(CHAT, f"Count. {plan.mark}")
    reply = await scene.ask(CHAT, conversation, max_tokens=6)
    if scene.draws[-1].finish_reason != "length":
        raise CaseUnsupported("the client's max_tokens does not reach the sampler, so nothing was cut")
    await scene.ask(CHAT, conversation.plus(*reply.echo, CHAT.user(f"Go on. {second.mark}")))
    await scene.settle()


async def greedy(scene: Scene) -> None:
    """A greedy or top-p request: either the policy is sampled all the same, or its tokens are not trained."""
    asked: tuple[dict[str, float], ...] = ({"temperature": 0}, {"temperature": 1, "top_p": 0.5})
    for number, knobs in enumerate(asked):
        plan = scene.engine.plan(f"number {number}")
        answer = await scene.post(CHAT, CHAT.body(opening(CHAT, f"Speak. {plan.mark}"), **knobs))
        if answer.status in (400, 422):
            raise CaseUnsupported(f"{knobs} is refused with {answer.status}: {answer.text[:120]}")
        scene.demand(answer.status == 200, f"{knobs} is answered {answer.status}: {answer.text[:200]}")
    await scene.settle()


async def engine_failure(scene: Scene) -> None:
    """An engine that fails once leaves no half record: the call fails (or is retried), and the next one works."""
    plan, second = scene.engine.plan("fine", num_failures=1), scene.engine.plan("done")
    answer = await scene.post(CHAT, CHAT.body(opening(CHAT, f"Speak. {plan.mark}")))
    scene.demand(answer.status == 200 or answer.status >= 500, f"a failed engine is answered {answer.status}: {answer.text[:200]}")
    reply = await scene.ask(CHAT, opening(CHAT, f"Again. {second.mark}"))
    scene.demand(reply.text == "done", f"the next call got {reply.text!r}")
    record = await scene.settle()
    empty = [row for row in record.rows if not any(row.trained)]
    scene.demand(not empty, f"{len(empty)} rows without a sampled token are in the record")


async def engine_failure_streamed(scene: Scene) -> None:
    """The same for a streamed call: an error status or an error event, never a stream that ends as if all were well."""
    scene.require("stream")
    plan, second = scene.engine.plan("fine", num_failures=1), scene.engine.plan("done")
    answer = await scene.post(CHAT, CHAT.body(opening(CHAT, f"Speak. {plan.mark}"), stream=True))
    seems_well = answer.status == 200 and '"error"' not in answer.text and "fine" not in answer.text
    scene.demand(not seems_well, f"the engine failed, the agent got status 200 and {answer.text[:200]!r}")
    await scene.ask(CHAT, opening(CHAT, f"Again. {second.mark}"))
    await scene.settle()


async def exact_logprobs(scene: Scene) -> None:
    """Recorded log-probabilities are the engine's, draw by draw: two draws of equal tokens are told apart."""
    plan = scene.engine.plan("the same words", "the same words", "the same words")
    for number in range(3):
        await scene.ask(CHAT, opening(CHAT, f"Speak. {number} {plan.mark}"))
    await scene.settle()


async def equal_requests(scene: Scene) -> None:
    """One request sent three times without a retry mark (a best-of-three): three draws, three samples."""
    plan = scene.engine.plan("one", "two", "three")
    replies = [await scene.ask(CHAT, opening(CHAT, f"Count. {plan.mark}")) for _ in range(3)]
    scene.demand(len(scene.draws) == 3, f"the engine was asked {len(scene.draws)} times; the agent got {[reply.text for reply in replies]}")
    await scene.settle()


async def equal_requests_at_once(scene: Scene) -> None:
    """The same at once: an agent that samples three candidates in parallel."""
    plan = scene.engine.plan("one", "two", "three")
    replies = await asyncio.gather(*(scene.ask(CHAT, opening(CHAT, f"Count. {plan.mark}")) for _ in range(3)))
    texts = sorted(reply.text for reply in replies)
    scene.demand(texts == ["one", "three", "two"], f"three candidates were asked for, the agent got {texts}")
    await scene.settle()
