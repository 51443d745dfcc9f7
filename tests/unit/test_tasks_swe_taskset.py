"""The taskset of software tasks: which tasks a split holds, what an attempt opens on, and what is refused before any work."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from tests.software_task import FILES, write_task
from trunkline.errors import ConfigError, TaskError, VerifierError
from trunkline.run.agent_side import check_agent_fits
from trunkline.run.recipe import Recipe
from trunkline.tasks.base import SandboxedTaskset, TasksetOfCertifiedTasks
from trunkline.tasks.catalog import load_taskset
from trunkline.tasks.certificates.certificate import NO_OP, ORACLE, Certificate, Check
from trunkline.tasks.certificates.store import CertificateStore
from trunkline.tasks.swe.taskset import SweTaskset
from trunkline.types import Work


def named(folder: Path, *names: str) -> Path:
    for name in names:
        write_task(folder / name, **{"task.toml": FILES["task.toml"].replace("test/coupon", f"test/{name}")})
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return named(tmp_path / "tasks", "a", "b", "c")


def load(*paths: Path, share: float = 0.0) -> SweTaskset:
    taskset = load_taskset("swe", {"paths": list(map(str, paths)), "heldout_share": share})
    assert isinstance(taskset, SweTaskset)
    return taskset


def test_it_implements_what_the_run_asks_for(folder: Path) -> None:
    assert isinstance(load(folder), SandboxedTaskset) and isinstance(load(folder), TasksetOfCertifiedTasks)


def test_a_split_begins_anew_beyond_its_last_task_and_an_index_always_gives_the_same_task(folder: Path) -> None:
    taskset = load(folder)
    assert [taskset.task("train", index).task_id for index in range(4)] == ["test/a", "test/b", "test/c", "test/a"]
    assert taskset.task("train", 10_000_001) == load(folder).task("train", 10_000_001)


def test_a_task_says_its_instruction_and_where_it_lies_and_survives_json(folder: Path) -> None:
    task = load(folder).task("train", 0)
    assert [(message.role, message.content) for message in task.prompt] == [("user", FILES["instruction.md"])]
    assert (task.taskset, task.kind, task.payload["folder"]) == ("swe", "bug", str(folder / "a"))
    assert json.loads(json.dumps(task.payload)) == task.payload


def test_every_task_is_in_one_split_and_another_task_moves_none(folder: Path) -> None:
    before = load(folder, share=0.5).splits
    after = load(named(folder, "d", "e", "f", "g"), share=0.5).splits
    assert all(set(before[side]) <= set(after[side]) for side in ("train", "heldout"))
    assert sorted((*after["train"], *after["heldout"])) == [f"test/{name}" for name in "abcdefg"]


def test_a_share_that_leaves_a_split_empty_is_refused_with_shares_that_do_not(folder: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"none of 3 tasks is left for the held-out split.* above (0\.\d+) and up to 0\.\d+ both"
    ) as caught:
        load(folder, share=0.0001)
    share = float(str(caught.value).split("above ")[1].split()[0]) + 0.001
    assert all(load(folder, share=share).splits.values())
    with pytest.raises(ConfigError, match="none of 1 tasks is left for"):
        load(folder / "a", share=0.5)


def test_a_split_that_is_empty_on_purpose_has_no_task(folder: Path) -> None:
    with pytest.raises(ConfigError, match="no software task is in split 'heldout'"):
        load(folder).task("heldout", 0)
    with pytest.raises(ConfigError, match="no split 'test'; its splits are train, heldout"):
        load(folder).task("test", 0)


def test_a_mistake_in_the_options_names_the_place(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"taskset.options.path: .*known are \['exploit_share', 'heldout_paths', "):
        load_taskset("swe", {"paths": [str(folder)], "path": "x"})
    with pytest.raises(TaskError, match=r"nowhere is no task and holds none"):
        load(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match=r"two tasks are called 'test/a': .*tasks/a and .*copy; rename one"):
        write_task(folder / "copy", **{"task.toml": FILES["task.toml"].replace("test/coupon", "test/a")})
        load(folder)


def test_only_what_a_run_may_train_on_is_left_if_that_is_wanted(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRUNKLINE_HOME", str(tmp_path / "home"))
    options = {"paths": [str(folder)], "heldout_share": 0, "only_certified": True}
    with pytest.raises(ConfigError, match="only_certified leaves no task; certify them first"):
        load_taskset("swe", options)
    for subject, guessable in zip(load(folder).subjects(), (False, True, False), strict=False):
        checks = [Check.count(name, earns, num_attempts=1, num_wrong=0, num_disagreeing=0) for name, earns in ((ORACLE, 1), (NO_OP, 0))]
        certificate = Certificate(
            kind="task",
            subject=subject.name,
            key=subject.key,
            attack_corpus_version="1",
            checks=(*checks, Check.count("attack", 0, num_attempts=1, num_wrong=0, num_disagreeing=0)),
            num_tasks_by_kind={"bug": 1},
            not_excluded=(),
            guessable=guessable,
        )
        CertificateStore.default().put(certificate.sealed())
    taskset = load_taskset("swe", options)
    assert isinstance(taskset, SweTaskset) and "test/a" in taskset.tasks and "test/b" not in taskset.tasks
    assert [subject.name for subject in taskset.subjects()] == list(taskset.splits["train"])


def test_an_attempt_opens_on_the_workspace_alone_and_offers_no_tools(folder: Path) -> None:
    taskset = load(folder)
    attempt = taskset.open(taskset.task("train", 1))
    assert attempt.workspace == folder / "b" / "environment" / "workspace" and attempt.tools.specs == ()
    assert "no tool 'bash'" in asyncio.run(attempt.tools.call("bash", "{}"))
    with pytest.raises(VerifierError, match=r"call using\(\)"):
        asyncio.run(attempt.verifier.verify(Work("")))


def test_a_task_whose_files_change_during_a_run_is_not_opened_again_until_they_are_restored(folder: Path) -> None:
    taskset, hidden = load(folder), folder / "a" / "tests" / "tree" / "tests" / "test_coupon.py"
    task, content = taskset.task("train", 0), hidden.read_text()
    hidden.write_text(content.replace("900", "901"))
    with pytest.raises(TaskError, match=r"tasks/a was changed since"):
        taskset.open(task)
    taskset.open(taskset.task("train", 1))
    hidden.write_text(content)
    taskset.open(task)


def test_a_task_of_an_earlier_start_of_the_run_is_not_opened_if_it_is_another_now(folder: Path) -> None:
    task = load(folder).task("train", 0)
    (folder / "a" / "instruction.md").write_text("Do something else.")
    with pytest.raises(TaskError, match=r"tasks/a was changed since"):
        load(folder).open(task)
    with pytest.raises(TaskError, match="'test/a' is not among the 1"):
        load(folder / "b").open(task)


# --- the recipe's agent -----------------------------------------------------------------------------------------------


def recipe(**sections: object) -> Recipe:
    return Recipe.model_validate(sections)


@pytest.mark.parametrize(
    ("sections", "who"),
    [({}, "our own loop"), ({"sandbox": {"kind": "unsafe"}, "agent": {"command": ["true"]}}, "a program on this host")],
)
def test_an_agent_in_no_sandbox_is_refused_with_what_to_set(folder: Path, sections: dict[str, object], who: str) -> None:
    with pytest.raises(ConfigError, match=rf"{who}.*set agent.command or agent.adapter"):
        check_agent_fits(recipe(**sections), load(folder))


def test_a_sandbox_that_would_show_a_task_is_refused(folder: Path) -> None:
    agent = {"command": ["python3", "-c", ""]}
    check_agent_fits(recipe(agent=agent), load(folder))
    for shown in (folder.parent, folder / "a", folder / "a" / "tests"):
        with pytest.raises(ConfigError, match=r"agents would see .*: its solution or hidden tests"):
            check_agent_fits(recipe(agent=agent, sandbox={"toolchain": [str(shown)]}), load(folder))
    with pytest.raises(ConfigError, match=r"agents would see .*oracle.patch"):
        check_agent_fits(recipe(agent={"command": ["cat", str(folder / "a" / "solution" / "oracle.patch")]}), load(folder))


def test_tasks_below_this_python_are_refused_however_they_are_named(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "link").symlink_to(folder)
    monkeypatch.setattr("sys.prefix", str(folder))
    with pytest.raises(ConfigError, match=r"agents would see"):
        check_agent_fits(recipe(agent={"command": ["python3"]}), load(tmp_path / "link"))


def test_splits_may_be_named_by_their_paths(folder: Path) -> None:
    options = {"paths": [folder / "a"], "heldout_paths": [folder / "b"], "unseen_paths": [folder / "c"]}
    taskset = SweTaskset.from_options(options)
    found = {split: taskset.task(split, 5).task_id for split in taskset.splits}
    assert found == {"train": "test/a", "heldout": "test/b", "unseen": "test/c"}
    assert len(taskset.subjects()) == 3


def test_held_out_paths_and_a_share_contradict_each_other(folder: Path) -> None:
    with pytest.raises(ConfigError, match="heldout_paths and heldout_share both say what is held out"):
        SweTaskset.from_options({"paths": [folder / "a"], "heldout_paths": [folder / "b"], "heldout_share": 0.5})


def test_the_same_task_in_two_splits_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match="two tasks are called 'test/a'"):
        SweTaskset.from_options({"paths": [folder / "a"], "heldout_paths": [folder]})


def test_the_tool_loop_fits_once_it_has_tools_on_the_workspace(folder: Path) -> None:
    check_agent_fits(recipe(agent={"workspace": {"tools": ["read"]}}), load(folder))


def test_tools_on_the_workspace_are_of_our_own_loop_outside_of_sandboxes() -> None:
    tools = {"tools": ["read"]}
    with pytest.raises(ValueError, match="agent.workspace is of our own loop"):
        recipe(agent={"command": ["true"], "workspace": tools})
    with pytest.raises(ValueError, match="with agent.workspace.tools the loop stays outside"):
        recipe(agent={"workspace": tools}, sandbox={"kind": "isolated"})
    with pytest.raises(ValueError, match="each tool is offered once"):
        recipe(agent={"workspace": {"tools": ["read", "read"]}})
