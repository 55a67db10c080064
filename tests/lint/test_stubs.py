"""The stub says what the module has: the same names, arguments, defaults and setters.

mypy's stubtest compares what Python can introspect; pybind11 keeps signatures in docstrings only, so
those are parsed here and compared with the stub's syntax tree.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import sys
from types import ModuleType

from conftest import ROOT, run

STUB = ROOT / "python/medusa_native/_core.pyi"
IMPLICIT = {"__doc__", "__module__", "__new__", "__weakref__", "__dict__", "__annotations__"}

Outline = dict[str, set[str]]  # dotted name to what is known of it


def outline_of_function(node: ast.FunctionDef) -> str:
    """Return the arguments without types: ``(paths, budget=)``."""
    arguments = node.args
    plain = [*arguments.posonlyargs, *arguments.args]
    with_default = len(plain) - len(arguments.defaults)
    parts = [a.arg + "=" * (i >= with_default) for i, a in enumerate(plain)]
    if arguments.vararg or arguments.kwonlyargs:
        parts.append("*" + (arguments.vararg.arg if arguments.vararg else ""))
    parts += [
        a.arg + "=" * (default is not None)
        for a, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    ]
    return "(" + ", ".join(part for part in parts if part != "self") + ")"


def stub_outline(body: list[ast.stmt], prefix: str = "") -> Outline:
    """Read the names of a stub's module or class body."""
    found: Outline = {}
    for node in body:
        if isinstance(node, ast.ClassDef):
            found[prefix + node.name] = {"class"}
            found |= stub_outline(node.body, f"{prefix}{node.name}.")
        elif isinstance(node, ast.FunctionDef):
            decorators = {ast.unparse(d) for d in node.decorator_list}
            if "property" in decorators:
                what = "property"
            elif any(d.endswith(".setter") for d in decorators):
                what = "setter"
            else:
                what = outline_of_function(node)
            found.setdefault(prefix + node.name, set()).add(what)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found[prefix + node.target.id] = {"value"}
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            found[prefix + node.targets[0].id] = {"value"}
    return {n: what for n, what in found.items() if n != "__all__" and not re.match(r"_(?!_)", n)}


def signatures(name: str, doc: str) -> set[str]:
    """Parse every overload's signature out of a pybind11 docstring."""
    lines = re.findall(rf"^(?:\d+\. )?{re.escape(name)}(\(.*\) -> .*)$", doc, re.MULTILINE)
    texts = [re.sub(r"<[^<>]*>", "...", line) for line in lines if line != "(*args, **kwargs)"]
    nodes = [ast.parse(f"def f{text}: ...").body[0] for text in texts]
    return {outline_of_function(node) for node in nodes if isinstance(node, ast.FunctionDef)}


def module_outline(owner: ModuleType | type, prefix: str = "") -> Outline:
    """Read the names of the compiled module or of one of its classes."""
    found: Outline = {}
    for name, member in vars(owner).items():
        if name in IMPLICIT or re.match(
            r"_(?!_)\w*_$|__pybind11|__(name|package|loader|spec|file)__", name
        ):
            continue
        if inspect.isclass(member):
            found[prefix + name] = {"class"}
            found |= module_outline(member, f"{prefix}{name}.")
        elif isinstance(member, property):
            found[prefix + name] = {"property"} | ({"setter"} if member.fset else set())
        elif callable(member) or isinstance(member, staticmethod):
            known = signatures(name, getattr(owner, name).__doc__ or "")
            if known or name != "__init__":  # a class that Python cannot make has no signature
                found[prefix + name] = known
        else:
            found[prefix + name] = {"value"}
    return found


def normalised(outline: Outline) -> Outline:
    """Let a plain attribute and a property with a setter be the same thing."""
    return {
        name: {"value"} if what == {"property", "setter"} else what
        for name, what in outline.items()
    }


def test_names_and_signatures() -> None:
    module = importlib.import_module("medusa_native._core")
    stub = normalised(stub_outline(ast.parse(STUB.read_text()).body))
    built = normalised(module_outline(module))
    assert stub == built


def test_stubtest() -> None:
    allowed = ("--allowlist", "tests/lint/stubtest_allowlist.txt", "--ignore-unused-allowlist")
    run(sys.executable, "-m", "mypy.stubtest", "medusa_native._core", "--concise", *allowed)
