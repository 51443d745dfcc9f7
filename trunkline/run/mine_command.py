"""`trunkline tasks mine`: arguments, progress and the printed report. Owns no mining."""

from __future__ import annotations

import asyncio
import datetime as dt
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from trunkline.errors import ConfigError

if TYPE_CHECKING:
    from trunkline.run.mining import Wanted
    from trunkline.tasks.factory.ledger import Entry, Made
    from trunkline.tasks.factory.report import Yield
    from trunkline.tasks.factory.sources import SourceWords
    from trunkline.tasks.factory.work import Options

_out = Console()
_err = Console(stderr=True)
_Again = Literal["none", "failed", "rejected"]
_MAY_CHANGE = ("head", "limit")
"""Of a source: more candidates, none of them another."""
_OURS = ("failed: ", "the sandbox failed", "the worker died", "out of time")

Words = Annotated[
    list[str],
    typer.Argument(metavar="SOURCE...", help="A local git clone; github:OWNER/NAME; or any number of pypi:NAME[==A..B] and npm:NAME."),
]


def mine(
    source: Words,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Tasks, the ledger and the report go here; a DIR is taken up again.")],
    project: Annotated[str, typer.Option(help="OWNER/NAME of a clone, where it does not say itself.")] = "",
    since: Annotated[dt.datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Leave out older changes.")] = None,
    only_fixes: Annotated[bool, typer.Option("--only-fixes", help="Only changes whose title says that they mend something.")] = False,
    clone: Annotated[Path | None, typer.Option(help="Of github:OWNER/NAME: take the trees from this clone.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Most candidates, newest first; a later call may set more.")] = None,
    sample: Annotated[
        int | None, typer.Option(min=1, help="So many candidates drawn from all; a larger sample holds a smaller one.")
    ] = None,
    jobs: Annotated[int, typer.Option("--jobs", min=1, help="Candidates at once; each uses about one core.")] = os.cpu_count() or 1,
    certify: Annotated[bool, typer.Option("--certify", help="Certify each task at once (about a minute of CPU each).")] = False,
    variants: Annotated[str, typer.Option(help="Make these of valid changes, too: inject, invert, review, merge (comma-separated).")] = "",
    again: Annotated[_Again, typer.Option(help="Work once more on what failed here, or on all that was rejected.")] = "none",
    timeout_s: Annotated[float, typer.Option(min=1, help="Of a run of the tests that a change touches.")] = 60.0,
    cap_s: Annotated[float, typer.Option(min=1, help="Of the one run of the whole suite.")] = 20.0,
    chat: Annotated[
        str, typer.Option(metavar="URL", help="An OpenAI-compatible endpoint that may write statements and mend recipes.")
    ] = "",
    chat_model: Annotated[str, typer.Option(help="Its model; the key is taken from OPENAI_API_KEY.")] = "",
) -> None:
    """Turn changes of real projects into tasks: rebuild, run the tests before and after, tell, write, certify.

    Each candidate, and each pair that --variants merge tries, ends in one line of DIR/candidates.jsonl, with its cause if it is no task;
    DIR/report.json counts them. An interrupted call is taken up by the same command. Whatever belongs to a project is built and run in
    sandboxes without network.

    Exit codes: 0 done; 2 the source or DIR cannot be used; 130 interrupted.
    """
    from trunkline.run.mining import Wanted
    from trunkline.tasks.factory.sources import SourceWords
    from trunkline.tasks.factory.work import Options

    if limit and sample:
        raise ConfigError("--limit takes the newest and --sample draws from all; choose one of them")
    words = SourceWords(
        words=tuple(source),
        project=project,
        since=since.replace(tzinfo=dt.UTC) if since else None,
        only_fixes=only_fixes,
        clone=str(clone.absolute()) if clone else "",
    )
    options = Options(_variants(variants), certify=certify, timeout_s=timeout_s, cap_s=cap_s, chat=_chat(chat, chat_model))
    try:
        counted = asyncio.run(_mine(words, out, options, jobs=jobs, wanted=Wanted(limit, sample, "merge" in options.variants), again=again))
    except KeyboardInterrupt:
        _err.print("interrupted; what was mined is kept, and the same command takes the rest up")
        raise typer.Exit(130) from None
    for line in (*counted.lines(), f"tasks in {out / 'tasks'}, every candidate in {out / 'candidates.jsonl'}"):
        _out.print(line, markup=False, highlight=False, soft_wrap=True)


def _variants(names: str) -> tuple[Any, ...]:
    from trunkline.tasks.factory.variants.made import VARIANTS

    found = tuple(filter(None, (name.strip() for name in names.split(","))))
    if unknown := sorted(set(found) - set(VARIANTS)):
        raise ConfigError(f"--variants knows {', '.join(VARIANTS)}, not {unknown[0]!r}")
    return found


def _chat(url: str, model: str) -> Any:
    from trunkline.tasks.factory.chat import ChatSettings

    if bool(url) != bool(model):
        raise ConfigError("--chat and --chat-model belong together: the endpoint, and the model that it is asked for")
    return ChatSettings(base_url=url, model=model) if url else None


async def _mine(words: SourceWords, out: Path, options: Options, *, jobs: int, wanted: Wanted, again: _Again) -> Yield:
    from trunkline.run.mining import mine as run_mining
    from trunkline.run.mining_worker import Setup
    from trunkline.sandbox.config import SandboxConfig
    from trunkline.sandbox.isolated import IsolatedSandboxes
    from trunkline.tasks.factory.languages import languages
    from trunkline.tasks.factory.ledger import Ledger

    async with IsolatedSandboxes.open(SandboxConfig()) as sandboxes:
        shown = _Progress()
        source = words.open(languages(sandboxes), told=shown.say)
        belongs = {name: value for name, value in source.identity().items() if name not in _MAY_CHANGE}
        ledger = Ledger.open(out, msgspec.to_builtins({"source": belongs, "variants": sorted(options.variants)}))
        setup = msgspec.to_builtins(Setup(words, str(ledger.tasks.absolute()), options))
        with shown:
            return await run_mining(
                source, ledger, setup, jobs=jobs, wanted=wanted, again=lambda entry: _is_again(entry, again), told=shown.told()
            )


def _is_again(entry: Entry, again: _Again) -> bool:
    causes = [one.cause for one in entry.rejected]
    return {"none": False, "failed": any(cause.startswith(_OURS) for cause in causes), "rejected": bool(causes)}[again]


class _Progress:
    """A bar over the candidates and pairs, a line for each that ends, and lines on what is waited for."""

    def __init__(self) -> None:
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._progress = Progress(*columns, console=_err, transient=True)
        self._bar = self._progress.add_task("candidates", total=None)
        self._num_valid = 0
        self._under_way: dict[str, None] = {}

    def __enter__(self) -> _Progress:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def told(self) -> Any:
        """For mining.mine."""
        from trunkline.run.mining import Told

        return Told(self._found, self._begin, self._end, self.say)

    def say(self, words: str) -> None:
        """A line of its own."""
        self._progress.console.print(words, markup=False, highlight=False, soft_wrap=True)

    def _found(self, num: int, is_all: bool) -> None:
        self._progress.update(self._bar, total=num if is_all else None)

    def _begin(self, candidate_id: str) -> None:
        self._under_way[candidate_id] = None
        self._describe()

    def _end(self, entry: Entry) -> None:
        is_candidate = entry.candidate_id in self._under_way
        self._under_way.pop(entry.candidate_id, None)
        self._num_valid += entry.is_valid
        self._describe()
        if is_candidate:
            self._progress.advance(self._bar)
            self.say(_line(entry))

    def _describe(self) -> None:
        words = f"{self._num_valid} valid; {', '.join(self._under_way)}"
        self._progress.update(self._bar, description=escape(words[:90]))


def _line(entry: Entry) -> str:
    seconds = f"{sum(entry.cpu_s.values()):.1f} CPU-s"
    made = [f"{one.variant} ({one.kind}, {one.num_fail_to_pass} turn{_certified(one)})" for one in entry.made]
    causes = [f"{one.stage}: {one.cause}" for one in entry.rejected]
    ended = "valid   " if entry.is_valid else "merged  " if entry.merges and entry.made else "rejected"
    return f"{ended} {entry.candidate_id}: {', '.join([*made, *causes])}, {seconds}"


def _certified(made: Made) -> str:
    if made.certified is None:
        return ""
    return ", refused" if not made.certified else ", certified but guessable" if made.guessable else ", certified"
