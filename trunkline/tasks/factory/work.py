"""The way of one candidate through the factory. Owns the order of the stages and what each cost; every stage is a file of its own.

lay both sides ─► environment, tests ─► kind ─► statement ─► directory ─► certificate
 (source)          (running)          (route)  (statement)  (write_task)   (swe/certify)
                        │                                       └─► variants: drafts of their own, from here on the same
                        └── any of these may end it: Rejection, with its stage and cause
"""

from __future__ import annotations

import contextlib
import re
import resource
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from trunkline.errors import CertificateError, SandboxError, TrunklineError
from trunkline.sandbox.isolated import IsolatedSandboxes
from trunkline.tasks.certificates.store import CertificateStore
from trunkline.tasks.factory.candidate import Candidate, Rejected, Rejection, Source, Stage
from trunkline.tasks.factory.chat import Chat, ChatSettings
from trunkline.tasks.factory.chat_words import ChatJudge, ChatWriter
from trunkline.tasks.factory.draft import Draft
from trunkline.tasks.factory.javascript.environment import JavaScriptEnvironment
from trunkline.tasks.factory.javascript.judge_files import judged
from trunkline.tasks.factory.language import Language
from trunkline.tasks.factory.ledger import Entry, Made
from trunkline.tasks.factory.repair import ChatRepair
from trunkline.tasks.factory.running import find_tests
from trunkline.tasks.factory.statement import write_statement
from trunkline.tasks.factory.variants.made import Variant, drafts_of
from trunkline.tasks.factory.write_task import write_task
from trunkline.tasks.swe.certify import certify_task, stored_certificate
from trunkline.tasks.swe.place import place_of
from trunkline.tasks.swe.task import load_code_task

_WORDS = 600


@dataclass(frozen=True)
class Options:
    """What is done with candidates."""

    variants: tuple[Variant, ...] = ()
    """What is made of each valid one, too."""
    certify: bool = False
    """Whether tasks are certified as soon as they are written."""
    timeout_s: float = 60.0
    """Of a run of the tests that the change touches."""
    cap_s: float = 20.0
    """Of the one run of the whole suite."""
    chat: ChatSettings | None = None
    """A model that may write statements and repair recipes; None: no model is asked."""


@dataclass
class Workshop:
    """What a worker has; works on one candidate at a time."""

    source: Source
    """Lays candidates."""
    languages: Sequence[Language]
    """The first that speaks a project is taken."""
    sandboxes: IsolatedSandboxes
    """Where all that belongs to a project runs."""
    tasks: Path
    """Where task directories go."""
    options: Options
    """Of the work."""
    chat: Chat | None = None
    """Open, if a model is asked."""

    @classmethod
    @asynccontextmanager
    async def open(
        cls, source: Source, languages: Sequence[Language], *, sandboxes: IsolatedSandboxes, tasks: Path, options: Options
    ) -> AsyncIterator[Workshop]:
        """With its model, if one is asked for. Raises ConfigError."""
        async with contextlib.AsyncExitStack() as stack:
            chat = await stack.enter_async_context(Chat.open(options.chat)) if options.chat else None
            yield cls(source, languages, sandboxes, tasks, options, chat)

    async def work_on(self, candidate: Candidate) -> Entry:
        """What became of it; a failure is a line with its cause, whatever failed."""
        with tempfile.TemporaryDirectory(prefix="trunkline-mine-") as folder:
            work = _Work(self, candidate, Path(folder))
            await work.run()
        return work.entry()


@dataclass
class StageMeter:
    """CPU-seconds of this process and of the children that it has waited for, by stage; what is outside stages belongs to the last one."""

    current: Stage = "select"
    """Under way, or the last."""
    spent: dict[Stage, float] = field(default_factory=dict)
    """By stage."""
    _started_s: float = field(default_factory=time.monotonic)

    @contextlib.contextmanager
    def stage(self, name: Stage) -> Iterator[None]:
        """What is used inside counts for it."""
        self.current, before = name, _cpu_seconds()
        try:
            yield
        finally:
            self.spent[name] = self.spent.get(name, 0.0) + _cpu_seconds() - before

    def seconds(self) -> float:
        """Wall time since it was made."""
        return time.monotonic() - self._started_s


@dataclass
class _Work:
    """One candidate."""

    shop: Workshop
    candidate: Candidate
    folder: Path
    meter: StageMeter = field(default_factory=StageMeter)
    made: list[Made] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    facts: dict[str, str] = field(default_factory=dict)

    async def run(self) -> None:
        with self._noted(self.candidate.candidate_id):
            draft, language = await self._draft()
            draft = await self._finish(draft)
            for variant in self.shop.options.variants:
                with self._noted(f"{self.candidate.candidate_id} {variant}"):
                    await self._vary(variant, draft, language)

    async def _vary(self, variant: Variant, draft: Draft, language: Language) -> None:
        folder = self.folder / variant
        folder.mkdir()
        with self.meter.stage("run"):
            drafts = await drafts_of(variant, draft, language, sandboxes=self.shop.sandboxes, folder=folder)
        for made in drafts:
            with self._noted(made.name):
                await self._finish(made)

    async def _draft(self) -> tuple[Draft, Language]:
        """Lays, builds, runs and routes."""
        options, before, after = self.shop.options, self.folder / "before", self.folder / "after"
        with self.meter.stage("select"):
            await self.shop.source.lay(self.candidate, "before", before)
            await self.shop.source.lay(self.candidate, "after", after)
            language = next((language for language in self.shop.languages if language.speaks(after)), None)
            if language is None:
                raise Rejection("select", "no language that is known here", ", ".join(one.name for one in self.shop.languages))
        with self.meter.stage("run"):
            found = await find_tests(
                language,
                self.candidate,
                before,
                after,
                timeout_s=options.timeout_s,
                cap_s=options.cap_s,
                repair=ChatRepair(self.shop.chat) if self.shop.chat else None,
            )
        self.facts |= found.facts
        draft = Draft(
            name=_named(self.candidate.candidate_id),
            kind=found.kind,
            candidate=self.candidate,
            workspace=before,
            solution=found.change.solution,
            hidden_tests=found.change.hidden_tests,
            test_files=found.test_files,
            tested=found.tested,
            environment=found.environment,
            facts=found.facts,
        )
        return draft, language

    async def _finish(self, draft: Draft) -> Draft:
        """Tells, writes and certifies; the draft with what it is told."""
        if not draft.instruction:
            with self.meter.stage("statement"):
                draft = await self._told(draft)
        with self.meter.stage("write"):
            target = self.shop.tasks / draft.name
            if target.exists():
                shutil.rmtree(target)  # of a call that was interrupted between the task and its line
            task = write_task(judged(draft) if isinstance(draft.environment, JavaScriptEnvironment) else draft, self.shop.tasks)
        made = Made(draft.name, draft.variant, draft.kind, len(draft.tested.fail_to_pass), len(draft.tested.pass_to_pass))
        if self.shop.options.certify:
            made = await self._certified(task, made)
        self.made.append(made)
        return draft

    async def _told(self, draft: Draft) -> Draft:
        chat = self.shop.chat
        writer, judge = (ChatWriter(chat), ChatJudge(chat)) if chat else (None, None)
        statement = await write_statement(draft, writer=writer, judge=judge)
        return replace(draft, instruction=statement.text, facts={**draft.facts, "told_by": statement.told_by})

    async def _certified(self, folder: Path, made: Made) -> Made:
        with self.meter.stage("certify"):
            task = load_code_task(folder)
            certificate = stored_certificate(task)
            try:
                if certificate is None:
                    place = await place_of(task, self.shop.sandboxes)
                    certificate = await certify_task(task, place, sandboxes=self.shop.sandboxes)
                    CertificateStore.default().put(certificate)
            except CertificateError as error:
                return replace(made, certified=False, refusal=str(error)[:_WORDS])
        return replace(made, certified=True, guessable=certificate.guessable)

    @contextlib.contextmanager
    def _noted(self, name: str) -> Iterator[None]:
        """A rejection, or a failure on our side, becomes a line."""
        try:
            yield
        except Rejection as error:
            self.rejected.append(Rejected(name, error.stage, error.cause, error.detail[:_WORDS]))
        except (TrunklineError, OSError) as error:
            cause = "the sandbox failed" if isinstance(error, SandboxError) else f"failed: {type(error).__name__}"
            self.rejected.append(Rejected(name, self.meter.current, cause, str(error)[:_WORDS]))

    def entry(self) -> Entry:
        """For the ledger."""
        facts = {**self.candidate.facts, **self.facts}
        return Entry(
            self.candidate.candidate_id,
            self.candidate.date.isoformat(),
            facts,
            tuple(self.made),
            tuple(self.rejected),
            {stage: round(seconds, 3) for stage, seconds in self.meter.spent.items()},
            round(self.meter.seconds(), 2),
        )


def _cpu_seconds() -> float:
    own, children = (resource.getrusage(which) for which in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def _named(candidate_id: str) -> str:
    """As a task's directory may be called."""
    return re.sub(r"[^a-z0-9._-]+", "-", candidate_id.lower()).strip("-._")
