"""The conformance kit on our own gateway, over a bridge, with planted faults in the record, and as a command."""

import asyncio
import dataclasses
import json
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route
from typer.testing import CliRunner

from trunkline.asgi import serve_port
from trunkline.bench.conformance import kit
from trunkline.bench.conformance.cases import CASES
from trunkline.bench.conformance.engine import SampleAsk, StubEngine
from trunkline.bench.conformance.kit import ConformancePlan, run_conformance
from trunkline.bench.conformance.model import ChatModel, write_model
from trunkline.bench.conformance.targets import BridgeTarget, TrunklineTarget, known_bridges
from trunkline.errors import ConfigError, InfraError
from trunkline.gateway.packaged import PackagedRenderer
from trunkline.run.cli import app


def conform(**plan):
    report = asyncio.run(asyncio.wait_for(run_conformance(ConformancePlan(**plan), lambda *progress: None), 240))
    return {verdict.case: verdict for verdict in report.verdicts}


class Spoiled:
    """Our gateway, whose record passes through `spoil`."""

    def __init__(self, inner, spoil):
        self._inner, self._spoil = inner, spoil
        self.name, self.version, self.unsupported = inner.name, inner.version, inner.unsupported

    async def open(self):
        return await self._inner.open()

    async def record(self, door):
        return self._spoil(await self._inner.record(door))


@asynccontextmanager
async def our_gateway():
    """The kit's engine and our gateway before it."""
    with tempfile.TemporaryDirectory() as folder:
        async with kit.serving_engine(Path(folder), 0) as (engine, address), TrunklineTarget.serving(address, engine.model) as ours:
            engine.is_drifting = True
            yield engine, ours


def case_named(name):
    return next(case for case in CASES if case.name == name)


def judge_spoiled(name, spoil):
    """The verdict on one case."""

    async def judging():
        async with our_gateway() as (engine, ours):
            return await kit.judge(case_named(name), Spoiled(ours, spoil), engine)

    return asyncio.run(asyncio.wait_for(judging(), 60))


def with_rows(record, rows):
    return dataclasses.replace(record, rows=tuple(rows))


def with_last_row(record, **changes):
    return with_rows(record, [*record.rows[:-1], dataclasses.replace(record.rows[-1], **changes)] if record.rows else [])


def test_our_gateway_passes_every_case():
    verdicts = conform()
    assert len(verdicts) == len(CASES)
    assert {name: verdict.reason for name, verdict in verdicts.items() if verdict.outcome != "pass"} == {}


def one_token_more(record):
    row = record.rows[-1]
    first = row.trained.index(True)
    return with_last_row(record, trained=(*row.trained[: first - 1], True, *row.trained[first:]))


def other_context(record):
    row = record.rows[-1]
    return with_last_row(record, token_ids=(row.token_ids[0] + 1, *row.token_ids[1:]))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda record: with_rows(record, record.rows[:-1]), "neither trained nor counted as dropped"),
        (lambda record: with_rows(record, [*record.rows, record.rows[0]]), "a second time"),
        (lambda record: with_last_row(record, logprobs=(0.0,) * len(record.rows[-1].logprobs)), "log-probabilities"),
        (one_token_more, "did not sample"),
        (other_context, "context that the engine never saw"),
    ],
    ids=["lost call", "call twice", "no logprobs", "prompt token trained", "other context"],
)
def test_a_planted_fault_in_the_record_is_found_and_named(spoil, said, monkeypatch):
    monkeypatch.setattr("trunkline.bench.conformance.scene._RECORD_WAIT_S", 0.1)
    verdict = judge_spoiled("chat: append", spoil)
    assert verdict.outcome == "fail"
    assert said in verdict.reason


def test_a_gateway_that_tokenises_its_history_anew_fails_the_case_of_drift(monkeypatch):
    monkeypatch.setattr(PackagedRenderer, "bridge", lambda *arguments: None)
    verdict = judge_spoiled("re-tokenisation drift", lambda record: record)
    assert verdict.outcome == "fail"
    assert "no token extension: it differs at sampled token 0" in verdict.reason


def bridge_app(ours):
    """Our gateway behind the routes that targets.py asks of a bridge."""
    doors = {}

    async def info(request):
        return JSONResponse({"name": "ours", "version": "1", "unsupported": {"messages": "left out on purpose"}})

    async def open_session(request):
        door = await ours.open()
        doors[door.session_id] = door
        return JSONResponse({"id": door.session_id, "base_url": door.base_url, "api_key": door.api_key})

    async def record(request):
        told = await ours.record(doors[request.path_params["session_id"]])
        return JSONResponse(
            {"rows": [dataclasses.asdict(row) for row in told.rows], "dropped": [dataclasses.asdict(one) for one in told.dropped]}
        )

    return Starlette(
        routes=[
            Route("/info", info),
            Route("/sessions", open_session, methods=["POST"]),
            Route("/sessions/{session_id}/record", record),
        ]
    )


def test_a_bridge_over_http_gives_the_same_verdicts():
    async def bridged():
        async with our_gateway() as (engine, ours):
            bridge = await serve_port(bridge_app(ours))
            async with BridgeTarget.at(f"http://127.0.0.1:{bridge.port}") as target:
                names = ("chat: append", "greedy and top-p", "stop strings", "moving cache_control")
                verdicts = {name: await kit.judge(case_named(name), target, engine) for name in names}
            await bridge.stop()
            return verdicts

    verdicts = asyncio.run(asyncio.wait_for(bridged(), 60))
    assert [verdict.outcome for verdict in verdicts.values()] == ["pass", "pass", "pass", "unsupported"]
    assert verdicts["moving cache_control"].reason == "left out on purpose"


def test_the_command_prints_a_table_and_writes_json(tmp_path):
    result = CliRunner().invoke(app, ["conformance", "--case", "drift", "--json", str(tmp_path / "table.json")])
    assert result.exit_code == 0, result.output
    assert result.output.endswith("1 pass, 0 fail, 0 unsupported\n")
    content = json.loads((tmp_path / "table.json").read_text())
    (case,) = content["cases"]
    assert (content["target"], case["case"], case["outcome"], case["reason"]) == ("trunkline", "re-tokenisation drift", "pass", "")
    assert case["sentence"].startswith("Tokens that no encoder would write")


def test_what_cannot_be_tested_is_said():
    with pytest.raises(ConfigError, match="no case's name holds"):
        conform(cases=("no such case",))
    with pytest.raises(ConfigError, match="no target 'unheard-of'.*verifiers"):
        conform(target="unheard-of")
    with pytest.raises(ConfigError, match="no bridge answers"):
        conform(url="http://127.0.0.1:9")


def test_a_bridge_whose_project_is_not_installed_says_so():
    assert "verifiers" in known_bridges()
    with pytest.raises(InfraError, match="is agentlightning installed"):
        conform(target="agentlightning")


def test_every_case_has_a_name_of_its_own_and_a_sentence():
    assert len({case.name for case in CASES}) == len(CASES)
    assert all(case.sentence.endswith(".") and len(case.sentence) > 30 for case in CASES)


def test_the_stub_engine_samples_what_is_planned_and_logs_it(tmp_path):
    write_model(tmp_path)
    model = ChatModel.load(tmp_path)
    engine = StubEngine(model)
    plan = engine.plan("hello world END tail")
    prompt = model.ids(f"say it {plan.mark}")
    whole, cut, stopped = (
        asyncio.run(engine.draw(prompt, ask)) for ask in (SampleAsk(), SampleAsk(max_tokens=2), SampleAsk(stop=("END",)))
    )
    assert model.text(whole.token_ids) == "hello world END tail<|im_end|>"
    assert (len(cut.token_ids), cut.finish_reason) == (2, "length")
    assert model.text(stopped.token_ids) == "hello world END"
    assert engine.draws == [whole, cut, stopped]
    assert len({drawn.logprobs[:2] for drawn in engine.draws}) == 3
    assert model.text(model.byte_ids("hello")) == "hello"
    assert model.byte_ids("hello") != model.ids("hello")
