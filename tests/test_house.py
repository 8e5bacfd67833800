"""The house as text: no circles, no crowded folders, no name twice, no retired word, every parameter documented."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from functools import cache

import pytest

from .support import ROOT, picture
from .support.source_tree import PACKAGES, circles, definitions, exported, functions, imports, modules

MOST_FILES = 14
MOST_LINES = 420  # about 400
MOST_FUNCTION_LINES = 60
GLOSSARY = ROOT / "docs" / "glossary.md"
PUBLIC_TWICE = {
    "errors",
    "trace_frontier",
    "_",
    "TopK",
}  # known by their doors: solvers and safekd, safety and language


@cache
def lines_of(path):
    return path.read_text(encoding="utf-8").splitlines()


# ------------------------------------------------------------------------------------------------------------ imports


def test_no_circle_of_imports_types_included():
    assert circles(imports()) == []


def test_a_circle_is_seen():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]


def test_rooms_are_entered_by_their_doors():
    """A private module of one room of safekd or solvers is imported in that room alone."""
    trespassing = [
        f"{name} -> {other}"
        for name, others in imports().items()
        for other in others
        if other.rpartition(".")[2].startswith("_") and not name.startswith(room_of(other))
    ]
    assert trespassing == []


def room_of(module):
    return ".".join(module.split(".")[:2]) if module.count(".") > 1 else module.split(".")[0]


# -------------------------------------------------------------------------------------------------------------- sizes


def test_folders_and_files_and_functions_are_of_a_size_that_can_be_read():
    folders = defaultdict(set)
    for path in [*modules().values(), *(p for p in (ROOT / "tests").rglob("*.py"))]:
        folders[path.parent].add(path.name)
    for path in (ROOT / "benchmarks").rglob("*.py"):
        folders[path.parent].add(path.name)
    assert {
        str(folder.relative_to(ROOT)): len(names) for folder, names in folders.items() if len(names) > MOST_FILES
    } == {}
    assert {name: len(lines_of(path)) for name, path in modules().items() if len(lines_of(path)) > MOST_LINES} == {}
    long = {
        f"{name}.{node.name}": length
        for name, path in modules().items()
        for node in functions(path)
        if (length := code_lines(node)) > MOST_FUNCTION_LINES
    }
    assert long == {}


def code_lines(node):
    """Lines of a function without its docstring and its parameters."""
    body = node.body[1:] if ast.get_docstring(node) is not None else node.body
    return body[-1].end_lineno - body[0].lineno + 1 if body else 0


# -------------------------------------------------------------------------------------------------------------- names


def test_no_file_name_twice():
    places = defaultdict(list)
    for name, path in modules().items():
        if path.stem not in ("__init__", "__main__", *PUBLIC_TWICE):
            places[path.stem].append(name)
    assert {stem: names for stem, names in places.items() if len(names) > 1} == {}


def test_no_top_level_name_twice():
    places = defaultdict(list)
    for name, path in modules().items():
        for node in definitions(path):
            places[node.name].append(name)
    twice = {name: where for name, where in places.items() if len(where) > 1 and name not in PUBLIC_TWICE}
    assert twice == {}


# -------------------------------------------------------------------------------------------------------------- words


def retired():
    """The words that the glossary retires, and where: in "text", in "names", or in "names in" some rooms."""
    rows = [line.split("|") for line in lines_of(GLOSSARY) if line.startswith("| ") and line.count("|") == 5]
    return [
        (word.strip(" `"), cells[3].strip())
        for cells in rows[1:]
        for word in cells[2].split(",")
        if word.strip(" `") and cells[3].strip() != "looked for in"
    ]


@pytest.mark.parametrize(("word", "where"), retired())
def test_no_retired_word(word, where):
    rooms = where.removeprefix("names in").replace("`", "").replace(",", " ").split() if " in " in where else PACKAGES
    if where == "text":
        pattern = re.compile(rf"(?<![A-Za-z]){re.escape(word)}(?![A-Za-z])", re.IGNORECASE)
        spoken = {
            str(path.relative_to(ROOT)): number
            for package in PACKAGES
            for path in (ROOT / package).rglob("*.py*")
            if path.suffix in (".py", ".pyi")
            for number, line in enumerate(lines_of(path), 1)
            if pattern.search(line)
        }
        assert spoken == {}
    named = {
        f"{name}: {identifier}"
        for name, path in modules().items()
        if any(name == room or name.startswith(f"{room}.") for room in rooms)
        for identifier in identifiers(path)
        if f"_{word}_" in f"_{identifier.lower()}_"
    }
    assert named == set()


def test_the_glossary_retires_words():
    assert len(retired()) > 30
    assert {where.split()[0] for _, where in retired()} == {"text", "names"}


@cache
def identifiers(path):
    return frozenset(list_identifiers(path))


def list_identifiers(path):
    yield path.stem
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id


# ---------------------------------------------------------------------------------------------------------- docstrings


def test_every_parameter_of_every_public_name_is_documented():
    missing = {name: gaps for name, node in exported() if (gaps := undocumented(node))}
    assert missing == {}


def undocumented(node):
    """Parameters, fields among them, that no line of the docstring describes."""
    text = ast.get_docstring(node) or ""
    if isinstance(node, ast.FunctionDef):
        wanted = parameters(node)
    else:
        wanted = fields(node) if is_dataclass(node) else []
        for method in node.body:
            if not isinstance(method, ast.FunctionDef) or is_hidden(method):
                continue
            if method.name == "__init__":
                wanted = parameters(method)
                text += "\n" + (ast.get_docstring(method) or "")
            elif gaps := undocumented(method):
                return [f"{method.name}({', '.join(gaps)})"]
    return ["no docstring"] if not text else [name for name in wanted if not re.search(entry(name), text, re.MULTILINE)]


def entry(name):
    return rf"^\s*(\*{{0,2}}\w+, )*\*{{0,2}}{re.escape(name)}(, \*{{0,2}}\w+)*( \([^)]*\))?:"


def is_hidden(method):
    return (
        (method.name.startswith("_") and method.name != "__init__")
        or any(isinstance(d, ast.Name) and d.id in ("overload", "override") for d in method.decorator_list)
        or any(isinstance(d, ast.Attribute) and d.attr in ("setter", "forward") for d in method.decorator_list)
    )


def parameters(node):
    arguments = node.args
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    every += [a for a in (arguments.vararg, arguments.kwarg) if a is not None]
    return [a.arg for a in every if a.arg not in ("self", "cls") and not a.arg.startswith("_")]


def fields(node):
    return [
        item.target.id
        for item in node.body
        if isinstance(item, ast.AnnAssign)
        and isinstance(item.target, ast.Name)
        and not item.target.id.startswith("_")
        and "ClassVar" not in ast.unparse(item.annotation)
    ]


def is_dataclass(node):
    names = [d.func if isinstance(d, ast.Call) else d for d in node.decorator_list]
    bases = {base.id for base in node.bases if isinstance(base, ast.Name)}
    return any(isinstance(d, ast.Name) and d.id == "dataclass" for d in names) or "NamedTuple" in bases


@pytest.mark.parametrize(
    ("source", "gaps"),
    [
        ("def f(a, b):\n    '''Do it.\n\n    Args:\n        a: One.\n        b: Two.\n    '''", []),
        ("def f(a, b):\n    '''Do it.\n\n    Args:\n        a: One.\n    '''", ["b"]),
        ("def f(a):\n    pass", ["no docstring"]),
        ("class C:\n    '''It.'''\n    def f(self, a):\n        '''Do it.'''", ["f(a)"]),
        (
            "@dataclass\nclass C:\n    '''It.\n\n    Attributes:\n        a: One.\n    '''\n    a: int\n    b: int",
            ["b"],
        ),
    ],
)
def test_a_gap_is_seen(source, gaps):
    assert undocumented(ast.parse(source).body[0]) == gaps


# -------------------------------------------------------------------------------------------------------------- picture


def test_the_picture_of_the_architecture_is_that_of_the_imports():
    page = picture.PAGE.read_text(encoding="utf-8")
    assert page == picture.replace_picture(page), "run `python -m tests.support.picture`"


@pytest.mark.parametrize("page", ["architecture.md", "promises.md", "glossary.md", "how-to-choose.md"])
def test_the_files_that_a_page_names_are_there(page):
    """Whole paths are looked up from the root, what begins elsewhere beside one of the packages' files."""
    names = re.findall(r"`([\w./]+\.py)`", (ROOT / "docs" / page).read_text(encoding="utf-8"))
    files = [str(path.relative_to(ROOT)) for path in modules().values()]
    assert [
        name for name in names if not (ROOT / name).exists() and not any(file.endswith(f"/{name}") for file in files)
    ] == []
