"""`trunkline show`: a run's summary, or one episode as a conversation. Owns the printing, reads only what the run wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from trunkline.errors import ConfigError


def show_run(run_dir: Path, out: Console) -> None:
    """Prints summary.json as a table. Raises ConfigError if the run has none (unfinished, or no run)."""
    try:
        summary = json.loads((run_dir / "summary.json").read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise ConfigError(f"{run_dir} has no readable summary.json ({error}); is the run finished?") from None
    table = Table(title=f"{summary['name']} · {summary['method']} · seed {summary['seed']}", box=None)
    for column in ("evaluation", "success", "95% interval", "n", "by kind"):
        table.add_column(column)
    for name, result in summary["evaluations"].items():
        kinds = "  ".join(f"{kind} {rate['value']:.2f}" for kind, rate in result["by_kind"].items())
        table.add_row(name, f"{result['value']:.3f}", f"{result['low']:.3f} .. {result['high']:.3f}", str(result["n"]), kinds)
    out.print(table)
    out.print(
        f"{summary['rl_steps']} RL steps, {summary['cpu_seconds']:.0f} CPU-s counted, {summary['evaluation_cpu_seconds']:.0f} CPU-s of "
        f"evaluation, {summary['wall_seconds']:.0f} s, peak memory {summary['peak_rss_bytes'] / 2**20:.0f} MiB",
        highlight=False,
        soft_wrap=True,
    )


def show_episode(run_dir: Path, episode_id: str, out: Console) -> None:
    """Prints one episode's messages, calls and rewards. Raises ConfigError if no file under episodes/ holds it."""
    episode = _find(run_dir, episode_id)
    out.print(
        f"{episode['episode_id']}  task {episode['task_id']}  {episode['status']}  reward {episode['reward']}",
        highlight=False,
        soft_wrap=True,
    )
    for message in episode["messages"]:
        calls = " ".join(f"{call['name']}({call['arguments']})" for call in message.get("tool_calls", ()))
        parent = "" if message["parent"] in (None, message["id"] - 1) else f" (after {message['parent']})"
        out.print(
            f"  [{message['id']}]{parent} {message['role']}: {message['content']}{calls}", markup=False, highlight=False, soft_wrap=True
        )
    for number, call in enumerate(episode["calls"]):
        dropped = f", dropped: {call['dropped']}" if call["dropped"] else ""
        out.print(
            f"  call {number}: messages {call['walk']}, {call['num_prompt_tokens']} prompt tokens ({call['num_shared_tokens']} shared), "
            f"{call['num_sampled_tokens']} sampled, {call['finish_reason']}, policy {', '.join(call['policy_versions'])}{dropped}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
    for reward in episode["rewards"]:
        out.print(f"  {reward['name']} {reward['value']}: {reward['evidence']}", markup=False, highlight=False, soft_wrap=True)
    if episode["failure"]:
        failure = episode["failure"]
        out.print(
            f"  {failure['kind']} at the {failure['boundary']} boundary: {failure['message']}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )


def _find(run_dir: Path, episode_id: str) -> dict[str, Any]:
    files = sorted((run_dir / "episodes").glob("*.jsonl"))
    if not files:
        raise ConfigError(f"{run_dir} has no episodes/*.jsonl; is it a run directory?")
    wanted = json.dumps(episode_id)
    for path in files:
        with path.open(encoding="utf-8") as file:
            for line in file:
                if wanted in line:
                    episode: dict[str, Any] = json.loads(line)
                    if episode["episode_id"] == episode_id:
                        return episode
    raise ConfigError(f"no episode {episode_id!r} under {run_dir / 'episodes'}; ids look like g000012-a03")
