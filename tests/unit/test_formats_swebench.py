"""SWE-bench's instances and predictions: read, written, made from a real repository into a task and back."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from trunkline.errors import TaskError
from trunkline.tasks.formats.git_patch import apply_patch, extract_commit, merge_text, patch_of
from trunkline.tasks.formats.harbor import read_harbor
from trunkline.tasks.formats.harbor_honoured import refusals
from trunkline.tasks.formats.swebench import (
    SweInstance,
    instance_of,
    not_used,
    prediction_of,
    read_instances,
    write_instances,
    write_predictions,
)
from trunkline.tasks.formats.swebench_tasks import export_instance, import_instance, import_notices
from trunkline.tasks.swe.task import load_code_task
from trunkline.types import FileChange

BUGGY = "def area(a, b):\n    return a + b\n"
FIXED = "def area(a, b):\n    return a * b\n"
OLD_TEST = "from shapes import area\n\n\ndef test_unit():\n    assert area(2, 2) == 4\n"
NEW_TEST = OLD_TEST + "\n\ndef test_area():\n    assert area(3, 4) == 12\n"
F2P, P2P = ["tests/test_shapes.py::test_area"], ["tests/test_shapes.py::test_unit"]


def git(folder: Path, *arguments: str) -> str:
    settings = ["-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "init.defaultBranch=main", "-c", "commit.gpgsign=false"]
    return subprocess.run(["git", *settings, *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout


def put(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Two commits: the bug with a test that passes, and the fix with a new test."""
    folder = tmp_path / "clone"
    folder.mkdir()
    git(folder, "init", "--quiet")
    put(
        folder,
        {"src/shapes.py": BUGGY, "tests/test_shapes.py": OLD_TEST, ".gitattributes": "tests export-ignore\n", "run.sh": "#!/bin/sh\n"},
    )
    (folder / "run.sh").chmod(0o755)
    (folder / "link").symlink_to("run.sh")
    git(folder, "add", "-A")
    git(folder, "commit", "--quiet", "-m", "base")
    git(folder, "tag", "base")
    put(folder, {"src/shapes.py": FIXED, "tests/test_shapes.py": NEW_TEST, "tests/data/one.txt": "1\n"})
    git(folder, "add", "-A")
    git(folder, "commit", "--quiet", "-m", "the fix, which nobody may see")
    return folder


def row_of(repository: Path, **further: Any) -> dict[str, Any]:
    return {
        "repo": "org/shapes",
        "instance_id": "org__shapes-1",
        "base_commit": git(repository, "rev-parse", "base").strip(),
        "patch": git(repository, "diff", "base", "main", "--", "src"),
        "test_patch": git(repository, "diff", "base", "main", "--", "tests"),
        "problem_statement": "area() adds.",
        "FAIL_TO_PASS": json.dumps(F2P),
        "PASS_TO_PASS": P2P,
        **further,
    }


def files_of(folder: Path) -> dict[str, tuple[bool, bytes]]:
    return {
        str(path.relative_to(folder)): (os.access(path, os.X_OK), path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file() and ".git" not in path.relative_to(folder).parts
    }


def test_instances_are_read_from_an_array_from_lines_and_alone(tmp_path: Path) -> None:
    rows = [
        {
            "instance_id": name,
            "repo": "a/b",
            "base_commit": "c",
            "patch": "",
            "test_patch": "",
            "problem_statement": "p",
            "FAIL_TO_PASS": "[]",
        }
        for name in ("one", "two")
    ]
    texts = {
        "array.json": json.dumps(rows, indent=1),
        "lines.jsonl": "\n".join(map(json.dumps, rows)) + "\n\n",
        "alone.json": json.dumps(rows[0], indent=1),
    }
    put(tmp_path, texts)
    names = {name: [instance.instance_id for instance in read_instances(tmp_path / name)] for name in texts}
    assert names == {"array.json": ["one", "two"], "lines.jsonl": ["one", "two"], "alone.json": ["one"]}


@pytest.mark.parametrize("name", ["out.jsonl", "out.json"])
def test_an_instance_is_written_back_with_all_its_fields(repository: Path, tmp_path: Path, name: str) -> None:
    further = {"eval_type": "fail_only", "image": "img:latest", "datasets": ["lite"], "hints_text": "look", "own": {"deep": [None, 1]}}
    instance = instance_of(row_of(repository, **further))
    assert (instance.FAIL_TO_PASS, instance.PASS_TO_PASS, instance.image) == (tuple(F2P), tuple(P2P), "img:latest")
    write_instances(tmp_path / name, [instance])
    assert read_instances(tmp_path / name) == (instance,)
    assert instance.as_row() == row_of(repository, **further) | {"PASS_TO_PASS": json.dumps(P2P)}
    said = not_used(instance)
    assert any(line.startswith("eval_type: every test must report") for line in said)
    assert any(line.startswith("own: no field of SWE-bench") for line in said)
    assert not any(line.startswith(("image", "hints_text", "datasets")) for line in said)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "holds no instance"),
        ('{"a": 1}\n{broken', "line 2 is no JSON"),
        ("[1]", "instance 1 is a JSON object, got '1'"),
        ('[{"instance_id": "x"}]', "repo: Field required"),
        ('[{"instance_id": "x", "FAIL_TO_PASS": "oops"}]', "FAIL_TO_PASS: neither a list nor the JSON text of one, got 'oops'"),
    ],
)
def test_a_broken_file_is_named_with_the_place(tmp_path: Path, text: str, words: str) -> None:
    put(tmp_path, {"file.jsonl": text})
    with pytest.raises(TaskError) as caught:
        read_instances(tmp_path / "file.jsonl")
    assert words in str(caught.value)


def test_an_instance_that_occurs_twice_is_refused(repository: Path, tmp_path: Path) -> None:
    instance = instance_of(row_of(repository))
    write_instances(tmp_path / "twice.jsonl", [instance, instance])
    with pytest.raises(TaskError, match="org__shapes-1 occurs more than once"):
        read_instances(tmp_path / "twice.jsonl")


def test_an_instance_becomes_a_task_without_history(repository: Path, tmp_path: Path) -> None:
    folder = import_instance(instance_of(row_of(repository, hints_text="look", own=[None])), repository, tmp_path / "task")
    task = load_code_task(folder)
    assert (task.task_id, task.instruction, refusals(read_harbor(folder))) == ("swebench/org__shapes-1", "area() adds.\n", [])
    assert (task.settings.fail_to_pass, task.settings.pass_to_pass) == (tuple(F2P), tuple(P2P))
    assert (task.settings.test_files, task.settings.import_roots) == (("tests/test_shapes.py",), ("src", "."))
    assert files_of(task.workspace) == {
        ".gitattributes": (False, b"tests export-ignore\n"),
        "link": (True, b"#!/bin/sh\n"),
        "run.sh": (True, b"#!/bin/sh\n"),
        "src/shapes.py": (False, BUGGY.encode()),
        "tests/test_shapes.py": (False, OLD_TEST.encode()),
    }, "what a release leaves out is there, history is not, a link is a copy"
    assert task.hidden_tests is not None
    assert files_of(task.hidden_tests) == {"tests/test_shapes.py": (False, NEW_TEST.encode()), "tests/data/one.txt": (False, b"1\n")}
    assert b"nobody may see" not in b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_a_task_becomes_the_instance_that_it_was(repository: Path, tmp_path: Path) -> None:
    row = row_of(repository, hints_text="look", version="1.0", own=[None], image="img:1")
    back = export_instance(import_instance(instance_of(row), repository, tmp_path / "task"))
    assert back | {"test_patch": ""} == row | {"test_patch": "", "PASS_TO_PASS": json.dumps(P2P), "problem_statement": "area() adds.\n"}
    again = export_instance(import_instance(instance_of(back), repository, tmp_path / "again"))
    assert again == back, "diffs made by us are made the same again"


def test_a_task_of_ours_becomes_an_instance(repository: Path, tmp_path: Path) -> None:
    folder = import_instance(instance_of(row_of(repository)), repository, tmp_path / "task")
    config = (folder / "task.toml").read_text()
    (folder / "task.toml").write_text(config.replace("[metadata.swebench]", "[metadata.elsewhere]"))
    (folder / "solution/oracle.patch").unlink()
    with pytest.raises(TaskError, match="oracle.patch is missing"):
        export_instance(folder)
    fix = FileChange("src/shapes.py", "file", 0o644, FIXED.encode())
    row = export_instance(folder, oracle=[fix], pass_to_pass=[])
    assert (row["instance_id"], row["repo"], row["PASS_TO_PASS"]) == ("swebench__org__shapes-1", "swebench/org__shapes-1", "[]")
    assert len(row["base_commit"]) == 40
    assert row["base_commit"] == export_instance(folder, oracle=[fix])["base_commit"]
    assert row["dockerfile"].startswith("FROM python:")
    apply_patch(row["patch"], folder / "environment/workspace", what="patch")
    assert (folder / "environment/workspace/src/shapes.py").read_text() == FIXED


@pytest.mark.parametrize(
    ("further", "words"),
    [
        ({"base_commit": "0" * 40}, "has no commit"),
        ({"patch": "diff --git a/x b/x\n--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n"}, "patch of org__shapes-1 does not apply"),
        ({"test_patch": "nonsense"}, "test_patch of org__shapes-1 does not apply"),
        ({"FAIL_TO_PASS": ["test_x (app.tests.Case)"]}, "'test_x (app.tests.Case)' is no name of a pytest test"),
        ({"FAIL_TO_PASS": []}, "FAIL_TO_PASS is empty"),
    ],
)
def test_an_instance_that_cannot_be_a_task_is_refused(repository: Path, tmp_path: Path, further: dict[str, Any], words: str) -> None:
    with pytest.raises(TaskError) as caught:
        import_instance(instance_of(row_of(repository, **further)), repository, tmp_path / "task")
    assert words in str(caught.value)
    assert not (tmp_path / "task").exists()


def test_a_directory_without_a_repository_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="is no git repository"):
        extract_commit(tmp_path, "main", tmp_path / "out")


def test_a_test_that_its_patch_deletes_is_said() -> None:
    patch = "diff --git a/tests/test_old.py b/tests/test_old.py\ndeleted file mode 100644\nindex 1..0\n"
    fields = {"instance_id": "i", "repo": "r", "base_commit": "c", "patch": "", "problem_statement": "p", "FAIL_TO_PASS": []}
    assert import_notices(SweInstance(**fields, test_patch=patch)) == [
        "test_patch deletes tests/test_old.py: it stays in the workspace, and its tests are not judged"
    ]


@pytest.fixture
def pristine(tmp_path: Path) -> Path:
    folder = tmp_path / "pristine"
    put(
        folder,
        {"edited": "a\nb\nc\n", "gone": "x\n", "mode": "m\n", "dir/one": "1\n", "dir/two": "2\n", "was_file": "f\n", "crlf": "a\r\nb\r\n"},
    )
    (folder / "binary").write_bytes(bytes(range(256)))
    (folder / "latin").write_bytes("é\n".encode("latin-1"))
    (folder / "link").symlink_to("edited")
    (folder / ".gitattributes").write_text("* text eol=lf\nedited -diff\n")
    return folder


CHANGES = (
    FileChange("edited", "file", 0o644, b"a\nB\nc\n"),
    FileChange("gone", "deleted"),
    FileChange("mode", "file", 0o755, b"m\n"),
    FileChange("dir", "deleted"),
    FileChange("was_file", "directory", 0o755),
    FileChange("was_file/below", "file", 0o644, b"b\n"),
    FileChange("crlf", "file", 0o644, b"a\r\nc\r\n"),
    FileChange("binary", "file", 0o644, bytes(reversed(range(256)))),
    FileChange("latin", "file", 0o644, "è\n".encode("latin-1")),
    FileChange("link", "symlink", 0, b"mode"),
    FileChange('new/na me"ü\n', "file", 0o600, b"no end"),
    FileChange("empty", "file", 0o644, b""),
)


def test_a_patch_makes_all_kinds_of_changes(pristine: Path) -> None:
    patch = patch_of(CHANGES, pristine)
    assert "a\nB\nc\n" not in patch
    assert "-b\n+B\n" in patch, "a text is a text, whatever the attributes in the workspace say"
    json.dumps(patch)
    apply_patch(patch, pristine, what="patch")
    for change in CHANGES:
        place = pristine / change.path
        if change.kind == "deleted":
            assert not place.exists()
        elif change.kind == "symlink":
            assert os.readlink(place) == "mode"
        elif change.kind == "file":
            assert (place.read_bytes(), bool(place.stat().st_mode & 0o100)) == (change.content, change.mode == 0o755)


def test_what_git_cannot_hold_is_left_out(pristine: Path) -> None:
    hostile = (
        FileChange("../out", "file", 0o644, b"x"),
        FileChange("/abs", "file", 0o644, b"x"),
        FileChange(".git/hooks/post-checkout", "file", 0o755, b"x"),
        FileChange("sub/.GIT/config", "file", 0o644, b"x"),
        FileChange("new_dir", "directory", 0o755),
        FileChange("pipe", "other", 0o644),
        FileChange("edited", "file", 0o640, b"a\nb\nc\n"),
    )
    assert patch_of(hostile, pristine) == ""


def test_of_two_changes_of_one_text_both_stay_and_theirs_wins_where_they_meet() -> None:
    base = b'VERSION = "1"\n\n\nONE = 1\n\n\nTWO = 2\n'
    ours, theirs = base.replace(b'"1"', b'"0"').replace(b"= 2", b"= 22"), base.replace(b'"1"', b'"2"').replace(b"ONE = 1", b"ONE = 11")
    assert merge_text(ours, base, theirs) == theirs.replace(b"= 2\n", b"= 22\n")
    assert merge_text(b"\0ours", base, theirs) == theirs


def test_a_link_of_the_workspace_is_not_followed(pristine: Path, tmp_path: Path) -> None:
    put(tmp_path, {"secret/key": "s3cret\n"})
    (pristine / "away").symlink_to(tmp_path / "secret")
    patch = patch_of([FileChange("away/key", "file", 0o644, b"mine\n"), FileChange("away", "directory", 0o755)], pristine)
    assert "s3cret" not in patch
    assert "+mine" in patch


def test_a_prediction_holds_what_an_attempt_changed(pristine: Path, tmp_path: Path) -> None:
    prediction = prediction_of("org__x-1", [FileChange("edited", "file", 0o644, b"a\nB\nc\n")], pristine, model_name="model")
    write_predictions(tmp_path / "all_preds.jsonl", [prediction, prediction])
    rows = [json.loads(line) for line in (tmp_path / "all_preds.jsonl").read_text().splitlines()]
    assert [sorted(row) for row in rows] == [["instance_id", "model_name_or_path", "model_patch"]] * 2
    apply_patch(rows[0]["model_patch"], pristine, what="prediction")
    assert (pristine / "edited").read_text() == "a\nB\nc\n"
