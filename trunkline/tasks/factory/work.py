"""The way of one candidate, or of a pair, through the factory. Owns the order of the stages; every stage is a file of its own.

lay both sides ─► environment, tests ─► kind ─► statement ─► directory ─► certificate
 (source)          (running)          (route)  (statement)  (write_task)   (swe/certify)
                        │                                       └─► variants: drafts of their own, from here on the same
                        └── any of these may end it: Rejection, with its stage and cause

a pair: lay all four sides ─► do they overlap? ─► both as above up to their statements ─► merged ─► directory ─► certificate
"""

from __future__ import annotations

import contextlib
import functools
import re
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from trunkline.errors import CertificateError, SandboxError, TrunklineError
from trunkline.sandbox.isolated import IsolatedSandboxes
from trunkline.tasks.certificates.store import CertificateStore
from trunkline.tasks.environments.javascript.environment import JavaScriptEnvironment
from trunkline.tasks.factory.candidate import Candidate, Order, Rejected, Rejection, Source
from trunkline.tasks.factory.change import Change
from trunkline.tasks.factory.chat import Chat, ChatSettings
from trunkline.tasks.factory.chat_words import ChatJudge, ChatWriter
from trunkline.tasks.factory.draft import Draft
from trunkline.tasks.factory.javascript.judge_files import judged
from trunkline.tasks.factory.language import Language
from trunkline.tasks.factory.ledger import Entry, Made
from trunkline.tasks.factory.meter import StageMeter
from trunkline.tasks.factory.python import PythonBuilt
from trunkline.tasks.factory.repair import ChatRepair
from trunkline.tasks.factory.running import find_tests
from trunkline.tasks.factory.statement import write_statement
from trunkline.tasks.factory.variants.made import OF_ONE, OfOne, Variant, drafts_of
from trunkline.tasks.factory.variants.merge import Laid, check_apart, merge
from trunkline.tasks.factory.variants.pairs import SOURCE_FILES
from trunkline.tasks.factory.varied import varied_tests
from trunkline.tasks.factory.write_task import write_task
from trunkline.tasks.swe.certify import certify_task, stored_certificate
from trunkline.tasks.swe.place import VerdictPlace, place_of
from trunkline.tasks.swe.task import load_code_task

_WORDS = 600
_CUT_CHARACTERS = 300


@dataclass(frozen=True)
class Options:
    """What is done with candidates."""

    variants: tuple[Variant, ...] = ()
    """What is made of valid ones, too."""
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

    async def work_on(self, order: Order) -> Entry:
        """What became of it; a failure is a line with its cause, whatever failed."""
        with tempfile.TemporaryDirectory(prefix="trunkline-mine-") as folder:
            work = _Work(self, order, Path(folder))
            await work.run()
        return work.entry()


@dataclass
class _Work:
    """One order."""

    shop: Workshop
    order: Order
    folder: Path
    meter: StageMeter = field(default_factory=StageMeter)
    made: list[Made] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    facts: dict[str, str] = field(default_factory=dict)

    async def run(self) -> None:
        with self._noted(self.order.order_id):
            older = await self._lay(self.order.candidate)
            if self.order.newer is not None:
                await self._merge(older, await self._lay(self.order.newer))
                return
            draft = await self._finish(await self._draft(older))
            for variant in OF_ONE:
                if variant in self.shop.options.variants:
                    with self._noted(f"{self.order.order_id} {variant}"):
                        await self._vary(variant, draft, older.language)

    async def _vary(self, variant: OfOne, draft: Draft, language: Language) -> None:
        folder = self.folder / variant
        folder.mkdir()
        with self.meter.stage("run"):
            drafts = await drafts_of(variant, draft, language, sandboxes=self.shop.sandboxes, folder=folder)
        for made in drafts:
            with self._noted(made.name):
                await self._finish(made)

    async def _merge(self, older: _Sides, newer: _Sides) -> None:
        """Both worked on once more, since a draft is more than the directory that was made of it."""
        with self.meter.stage("run"):
            if older.language.name != "python" or newer.language.name != "python":
                raise Rejection("run", "variants are Python's only", f"{older.language.name}, {newer.language.name}")
            await check_apart(older.language, older.laid(), newer.laid())
        first, second = await self._draft(older), await self._draft(newer)
        self.facts = {"recipe": self.facts["recipe"]}
        with self.meter.stage("statement"):
            first, second = await self._told(first, beside=(second,)), await self._told(second, beside=(first,))
        with self.meter.stage("run"):
            merged = await merge(older.language, first, second, folder=self.folder / "merged", timeout_s=self.shop.options.timeout_s)
        await self._finish(merged)

    async def _lay(self, candidate: Candidate) -> _Sides:
        before, after = (self.folder / candidate.candidate_id / side for side in ("before", "after"))
        before.parent.mkdir()
        with self.meter.stage("select"):
            await self.shop.source.lay(candidate, "before", before)
            await self.shop.source.lay(candidate, "after", after)
            language = next((language for language in self.shop.languages if language.speaks(after)), None)
            if language is None:
                raise Rejection("select", "no language that is known here", ", ".join(one.name for one in self.shop.languages))
        return _Sides(candidate, before, after, language)

    async def _draft(self, sides: _Sides) -> Draft:
        """Builds, runs and routes."""
        options, language = self.shop.options, sides.language
        with self.meter.stage("run"):
            found = await find_tests(
                language,
                sides.candidate,
                sides.before,
                sides.after,
                timeout_s=options.timeout_s,
                cap_s=options.cap_s,
                repair=ChatRepair(self.shop.chat) if self.shop.chat else None,
            )
        sources = [change.path for change in found.change.solution if language.role_of(change.path) == "source"]
        self.facts |= {**found.facts, SOURCE_FILES: "\n".join(sources)}
        return Draft(
            name=_named(sides.candidate.candidate_id),
            kind=found.kind,
            candidate=sides.candidate,
            workspace=sides.before,
            solution=found.change.solution,
            hidden_tests=found.change.hidden_tests,
            test_files=found.test_files,
            tested=found.tested,
            environment=found.environment,
            facts=found.facts,
        )

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

    async def _told(self, draft: Draft, *, beside: Sequence[Draft] = ()) -> Draft:
        chat = self.shop.chat
        writer, judge = (ChatWriter(chat), ChatJudge(chat)) if chat else (None, None)
        statement = await write_statement(draft, writer=writer, judge=judge, beside=beside, varying=functools.partial(self._varied, draft))
        if statement.cut:
            words = "; ".join(filter(None, (self.facts.get("cut"), *statement.cut)))
            self.facts["cut"] = words if len(words) <= _CUT_CHARACTERS else f"{words[: _CUT_CHARACTERS - 4]} ..."
        return replace(draft, instruction=statement.text, facts={**draft.facts, "told_by": statement.told_by})

    async def _varied(self, draft: Draft) -> dict[str, str]:
        """Test files whose examples have other values, which the record names; JavaScript's have none."""
        if not isinstance(draft.environment, PythonBuilt):
            return {}
        place = VerdictPlace(self.shop.sandboxes, draft.environment.python)
        found = await varied_tests(draft, place, timeout_s=self.shop.options.timeout_s)
        if found:
            self.facts["varied"] = ", ".join(sorted(found))
        return found

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
        own = self.order.candidate.facts if self.order.newer is None else {}
        return Entry(
            self.order.order_id,
            self.order.date.isoformat(),
            {**own, **self.facts},
            tuple(self.made),
            tuple(self.rejected),
            {stage: round(seconds, 3) for stage, seconds in self.meter.spent.items()},
            round(self.meter.seconds(), 2),
            self.order.merges,
        )


@dataclass(frozen=True)
class _Sides:
    """A candidate whose files are laid."""

    candidate: Candidate
    before: Path
    after: Path
    language: Language

    def laid(self) -> Laid:
        """Its change. Raises Rejection (select)."""
        return Laid(self.before, Change.between(self.before, self.after, self.language))


def _named(candidate_id: str) -> str:
    """As a task's directory may be called."""
    return re.sub(r"[^a-z0-9._-]+", "-", candidate_id.lower()).strip("-._")
