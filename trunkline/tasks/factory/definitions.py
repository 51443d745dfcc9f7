"""What a Python file defines, with signatures. Owns no comparison; a file that does not parse defines nothing."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from trunkline.tasks.swe.syntax import parse

_KEPT = 32
"""Files that are not read again: a draft's few are asked about often."""
_Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Definition:
    """A function, class, method, attribute or value of a module."""

    name: str
    """Within its module: 'Reader.read'."""
    kind: Literal["function", "class", "value"]
    """value: a name or attribute that is assigned."""
    signature: str
    """'read(size, *, strict=False)', 'class Reader(Base)', 'LIMIT'; without self and annotations, defaults only if they are plain."""
    parameters: tuple[str, ...] = ()
    """Names that a call may give; of a class, those of what makes an instance."""
    most_positional: int | None = None
    """How many arguments a call may give by place; None: any number, or no calls are known."""

    @property
    def last_name(self) -> str:
        """'read' of 'Reader.read'."""
        return self.name.rpartition(".")[2]

    @property
    def owner(self) -> str:
        """'Reader' of 'Reader.read'; '' of what stands in the module itself."""
        return self.name.rpartition(".")[0]

    @property
    def is_public(self) -> bool:
        """No part of its name begins with an underscore, but for names such as __len__."""
        return not any(part.startswith("_") and not part.endswith("__") for part in self.name.split("."))


@functools.lru_cache(maxsize=_KEPT)
def parsed(source: str) -> ast.Module | None:
    """The tree of a module, not to be changed; None if it is none for this Python."""
    try:
        return parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


@functools.lru_cache(maxsize=_KEPT)
def definitions_of(source: str) -> Mapping[str, Definition]:
    """By name within the module. Branches of if and try count; what is inside of functions does not, but for self's attributes."""
    tree = parsed(source)
    return {} if tree is None else {found.name: found for found in _in_body(tree.body, "")}


def bound_names(source: str) -> frozenset[str] | None:
    """Names that a module has for whoever imports it; None if that cannot be told: star imports, __getattr__, or no Python."""
    tree = parsed(source)
    if tree is None:
        return None
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            found |= {(name.asname or name.name).split(".")[0] for name in node.names}
    found |= {name.partition(".")[0] for name in definitions_of(source)}
    return None if found & {"*", "__getattr__"} else frozenset(found)


def _in_body(body: Sequence[ast.stmt], owner: str) -> Iterator[Definition]:
    for node in body:
        if isinstance(node, _Function):
            yield _function(node, owner)
            if owner:
                yield from _attributes_of_self(node, owner)
        elif isinstance(node, ast.ClassDef):
            inside = list(_in_body(node.body, f"{owner}{node.name}."))
            yield _class(node, owner, inside)
            yield from inside
        elif isinstance(node, ast.If | ast.Try | ast.With):
            yield from _in_body(_branches(node), owner)
        else:
            for name in _assigned(node):
                yield Definition(f"{owner}{name}", "value", name)


def _branches(node: ast.If | ast.Try | ast.With) -> list[ast.stmt]:
    found = [*node.body]
    if isinstance(node, ast.Try):
        found += [statement for handler in node.handlers for statement in handler.body] + node.orelse + node.finalbody
    elif isinstance(node, ast.If):
        found += node.orelse
    return found


def _function(node: _Function, owner: str) -> Definition:
    kinds = {decorator.id for decorator in node.decorator_list if isinstance(decorator, ast.Name)}
    if kinds & {"property", "cached_property"}:
        return Definition(f"{owner}{node.name}", "value", node.name)
    skip_first = bool(owner) and "staticmethod" not in kinds
    positional = [*node.args.posonlyargs, *node.args.args][1 if skip_first else 0 :]
    parameters = tuple(argument.arg for argument in [*positional, *node.args.kwonlyargs])
    most = None if node.args.vararg else len(positional)
    signature = f"{node.name}({arguments_of(node.args, skip_first=skip_first)})"
    return Definition(f"{owner}{node.name}", "function", signature, parameters, most)


def _class(node: ast.ClassDef, owner: str, inside: Sequence[Definition]) -> Definition:
    bases = [ast.unparse(base) for base in node.bases if not ast.unparse(base).rpartition(".")[2].startswith("_")]
    signature = f"class {node.name}({', '.join(bases)})" if bases else f"class {node.name}"
    makers = [found for found in inside if found.last_name in ("__init__", "__new__") and found.owner == f"{owner}{node.name}"]
    if makers:
        return Definition(f"{owner}{node.name}", "class", signature, makers[0].parameters, makers[0].most_positional)
    fields = tuple(found.target.id for found in node.body if isinstance(found, ast.AnnAssign) and isinstance(found.target, ast.Name))
    return Definition(f"{owner}{node.name}", "class", signature, fields)


def _attributes_of_self(node: _Function, owner: str) -> Iterator[Definition]:
    for found in ast.walk(node):
        if isinstance(found, ast.Attribute) and isinstance(found.ctx, ast.Store) and ast.unparse(found.value) == "self":
            yield Definition(f"{owner}{found.attr}", "value", found.attr)


def _assigned(node: ast.stmt) -> Iterator[str]:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    for target in targets:
        for found in ast.walk(target):
            if isinstance(found, ast.Name) and isinstance(found.ctx, ast.Store):
                yield found.id


def arguments_of(arguments: ast.arguments, *, skip_first: bool = False) -> str:
    """Parameters as a signature has them, without annotations; a default that is no plain value is '...'."""
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults: list[ast.expr | None] = [*[None] * (len(positional) - len(arguments.defaults)), *arguments.defaults]
    words = [_parameter(argument, default) for argument, default in zip(positional, defaults, strict=True)]
    if arguments.posonlyargs:
        words.insert(len(arguments.posonlyargs), "/")
    words = words[1 if skip_first else 0 :]
    if words and words[0] == "/":
        words = words[1:]
    if arguments.vararg:
        words.append(f"*{arguments.vararg.arg}")
    elif arguments.kwonlyargs:
        words.append("*")
    words += [_parameter(argument, default) for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)]
    if arguments.kwarg:
        words.append(f"**{arguments.kwarg.arg}")
    return ", ".join(words)


def _parameter(argument: ast.arg, default: ast.expr | None) -> str:
    if default is None:
        return argument.arg
    try:
        ast.literal_eval(default)
    except ValueError:
        return f"{argument.arg}=..."
    return f"{argument.arg}={ast.unparse(default)}"


def new_definitions(before: str, after: str) -> Mapping[str, Definition]:
    """Those of `after` whose names `before` does not define."""
    old = definitions_of(before)
    return {name: found for name, found in definitions_of(after).items() if name not in old}
