r"""How large the house is, how well it is named and how its files hang together (HOUSE.md).

The small scale of a library shows in a diff, the large scale does not: it wants to be measured.
Every measure is one function of the parsed files, so that the table and `tests/test_house.py`
cannot disagree. Only the standard library is needed, except for ``--fit``, which runs a fit and
counts the files that it enters before the first optimizer step, and the frames between ``sample``
and the network.

What counts. *Core* is the package without ``lesson/``. *Code lines* are those that hold code: no
blank lines, comments or docstrings. A name has *one word* if no underscore is left inside it when
those at its ends are gone; it is a *participle* if its only or last word ends in -ed, or stands in
`IRREGULAR`, unless it stands in `NOT_PARTICIPLES`. An *import* is counted wherever it stands: in a
function, under TYPE_CHECKING, in ``import_module(".name", __name__)``, there also by a table of
names in the file, and in a string that spells a module of the package; the package's own
``__init__.py``, which imports lazily, is left out, and so is a module whose name a caller gives.
A *circle* is a set of files that all reach one another. A *move* is a call from a function of one
file to a function of another; a module that is being imported calls nothing.

Usage:
    python benchmarks/house.py [PATH_TO_PACKAGE] [--fit] [--json]
"""

import argparse
import ast
import io
import json
import re
import sys
import tokenize
from collections.abc import Iterator
from functools import cached_property
from importlib import import_module
from inspect import CO_OPTIMIZED
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, NamedTuple

PACKAGE = Path(__file__).parents[1] / "src" / "pushforward"
IRREGULAR = {"told", "drawn", "worn", "kept", "taught", "taken", "found", "said", "made", "seen"}
IRREGULAR |= {"held", "known", "given", "shown", "built", "chosen"}
NOT_PARTICIPLES = {"seed", "embed", "feed", "need", "speed", "bed", "red", "shed", "exceed"}
LONGEST_FILE = 350
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
TOP = (*FUNCTIONS, ast.ClassDef)
NOT_CODE = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}
# where a user enters: they may take more parameters, and their signature is not counted as code
DOORS = {
    "fit": "the one call that trains: each keyword is a documented choice of the user's",
    "compare": "the same for all families at once",
    "evaluate": "public, and what users call it with stays",
    "build": "of a family: a keyword for each of its options, which the registry reads",
    "command": "of the command line: a parameter for each option, which the parser reads",
}


class File(NamedTuple):
    """A file of the package, read once."""

    path: Path  # from the package's root
    text: str
    tree: ast.Module

    @property
    def core(self) -> bool:
        return self.path.parts[0] != "lesson"

    @property
    def lines(self) -> int:
        return len(self.text.splitlines())

    @property
    def top(self) -> list[Any]:
        """Functions and classes that the module defines, not those inside others."""
        return [node for node in self.tree.body if isinstance(node, TOP)]

    def code(self) -> set[int]:
        """Lines that hold code or a part of a string."""
        held: set[int] = set()
        for token in tokenize.generate_tokens(io.StringIO(self.text).readline):
            if token.type not in NOT_CODE:
                held |= set(range(token.start[0], token.end[0] + 1))
        return held - {line for node in self.documented for line in docstring_lines(node)}

    @property
    def documented(self) -> list[Any]:
        """The module, classes and functions that have a docstring."""
        nodes = [n for n in ast.walk(self.tree) if isinstance(n, (ast.Module, *TOP))]
        return [n for n in nodes if ast.get_docstring(n, clean=False) is not None]


class House:
    """The files of a package; everything else is a function of it.

    Arguments:
        package: The folder that holds ``__init__.py``.
    """

    def __init__(self, package: Path = PACKAGE) -> None:
        self.package = Path(package).resolve()
        paths = sorted(self.package.rglob("*.py"))
        texts = {path.relative_to(self.package): path.read_text("utf-8") for path in paths}
        self.files = [File(path, text, ast.parse(text)) for path, text in texts.items()]
        self.core = [file for file in self.files if file.core]

    @cached_property
    def functions(self) -> list["Function"]:
        """All functions and methods, those inside others too."""
        return [f for file in self.files for f in functions(file)]

    @cached_property
    def modules(self) -> dict[str, Path]:
        """Files by the dotted name of their module, from the package's root; "" is the package."""
        parts = {f.path: f.path.with_suffix("").parts for f in self.files}
        names = {path: p[:-1] if p[-1] == "__init__" else p for path, p in parts.items()}
        return {".".join(name): path for path, name in names.items()}


class Function(NamedTuple):
    """A function or method, and what is measured of it."""

    where: str  # families/vae.py:12 VAE.sample
    name: str
    door: str | None  # its key in DOORS
    total: int  # code lines
    length: int  # the same, but at the doors those of the body: options take a line or more each
    parameters: int


def docstring_lines(node: Any) -> range:
    """The lines of a docstring."""
    return range(node.body[0].lineno, node.body[0].end_lineno + 1)


def functions(file: File) -> Iterator[Function]:
    """The functions of a file in their order, with their classes in the name."""
    code = file.code()

    def within(node: ast.AST, outer: str) -> Iterator[Function]:
        for child in ast.iter_child_nodes(node):
            name = f"{outer}.{child.name}".lstrip(".") if isinstance(child, TOP) else outer
            if isinstance(child, FUNCTIONS):
                span = set(range(child.lineno, child.end_lineno + 1)) & code
                entry = door(file, child, name)
                body = [line for line in span if not entry or line >= child.body[0].lineno]
                yield Function(
                    f"{file.path}:{child.lineno} {name}",
                    child.name,
                    entry,
                    len(span),
                    len(body),
                    count_parameters(child, inside_class=isinstance(node, ast.ClassDef)),
                )
            yield from within(child, name)

    yield from within(file.tree, "")


def door(file: File, node: Any, name: str) -> str | None:
    """Which door of the house a function is, if any."""
    if is_command(node):
        return "command"
    if name == "build" and file.path.parts[0] == "families":
        return "build"
    return name if name in DOORS.keys() - {"build", "command"} and file.core else None


def is_command(node: Any) -> bool:
    """Whether a function is decorated as a command, or as what runs before all of them."""
    decorators = [d.func if isinstance(d, ast.Call) else d for d in node.decorator_list]
    return any(
        isinstance(d, ast.Attribute) and d.attr in ("command", "callback") for d in decorators
    )


def count_parameters(node: Any, *, inside_class: bool) -> int:
    """Parameters, starred ones too, but not that for the object or class of a method."""
    a = node.args
    names = [p.arg for p in (*a.posonlyargs, *a.args, *a.kwonlyargs, a.vararg, a.kwarg) if p]
    return len(names) - (inside_class and names[:1] in (["self"], ["cls"]))


def count_lines(files: list[File]) -> int:
    """Lines of files."""
    return sum(file.lines for file in files)


def longest_function(house: House) -> Function:
    """The function with most code lines, signature included, doors as well."""
    return max(house.functions, key=lambda f: f.total)


def longest_counted(house: House) -> Function:
    """The function with most code lines; of the doors only the body counts."""
    return max(house.functions, key=lambda f: f.length)


def most_parameters(house: House, *, doors: bool = False) -> Function:
    """The function with most parameters, outside the doors or not."""
    return max((f for f in house.functions if doors or not f.door), key=lambda f: f.parameters)


def function_names(house: House) -> list[str]:
    """The names of the top-level functions of the core."""
    return [n.name for file in house.core for n in file.top if isinstance(n, FUNCTIONS)]


def one_word(house: House) -> float:
    """The share of them that have no underscore inside."""
    names = function_names(house)
    return sum("_" not in name.strip("_") for name in names) / len(names)


def is_participle(name: str) -> bool:
    """Whether a name is, or ends in, a past participle."""
    last = name.strip("_").split("_")[-1].lower()
    return last in IRREGULAR or (last.endswith("ed") and last not in NOT_PARTICIPLES)


def participles(house: House) -> float:
    """The share of top-level functions of the core that are named by a participle."""
    names = function_names(house)
    return sum(map(is_participle, names)) / len(names)


def definitions(house: House) -> list[tuple[str, str]]:
    """Name and place of all top-level functions and classes."""
    return [(n.name, f"{file.path}:{n.lineno}") for file in house.files for n in file.top]


def demanded(house: House) -> set[str]:
    """Names that several files must define: ``build``, and what a Protocol of model.py demands."""
    names = {"build"}
    for file in house.files:
        for node in file.top if file.path == Path("model.py") else ():
            bases = {ast.unparse(base).split("[")[0] for base in getattr(node, "bases", ())}
            if bases & {"Protocol", "typing.Protocol"}:
                names |= {n.name for n in node.body if isinstance(n, FUNCTIONS)}
    return names | {"__getattr__", "__dir__"}  # Python's own hooks of a module


def repeated_names(house: House) -> dict[str, list[str]]:
    """Names that several top-level functions or classes have, with their places."""
    places: dict[str, list[str]] = {}
    for name, place in definitions(house):
        places.setdefault(name, []).append(place)
    free = demanded(house)
    return {name: p for name, p in places.items() if len(p) > 1 and name not in free}


def repeated(house: House) -> int:
    """How many definitions share their name with another one."""
    return sum(map(len, repeated_names(house).values()))


def one_line_docstrings(house: House) -> float:
    """The share of the docstrings of functions and classes that take one line."""
    found = [n for file in house.files for n in file.documented if isinstance(n, TOP)]
    return sum(len(docstring_lines(n)) == 1 for n in found) / len(found)


def long_files(house: House) -> dict[str, int]:
    """Files above 350 lines."""
    return {str(f.path): f.lines for f in house.files if f.lines > LONGEST_FILE}


def word_count(house: House, word: str) -> int:
    """How often a word stands alone in the source, in code and in text."""
    return sum(len(re.findall(rf"\b{word}\b", f.text, flags=re.I)) for f in house.files)


def imports(house: House) -> dict[Path, set[Path]]:
    """The files that each file imports."""
    root = Path("__init__.py")
    found = {f.path: set(imported(house, f)) - {f.path, root} for f in house.files}
    return {path: targets for path, targets in found.items() if path != root}


def imported(house: House, file: File) -> Iterator[Path]:
    """The files whose modules a file imports, or names in a string that imports them."""
    here = file.path.parts[:-1]
    for node in ast.walk(file.tree):
        if isinstance(node, ast.ImportFrom):
            yield from targets(house, base_of(house, node, here), [a.name for a in node.names])
        elif isinstance(node, ast.Import):
            for alias in node.names:
                yield from targets(house, inside(house, alias.name), [])
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            yield from by_string(house, file, node)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            name = inside(house, node.value)
            if name in house.modules:
                yield house.modules[name]


def inside(house: House, name: str) -> str | None:
    """A dotted name from the package's root, if it begins with the package and goes on."""
    root = house.package.name + "."
    return name.removeprefix(root) if name.startswith(root) else None


def base_of(house: House, node: ast.ImportFrom, here: tuple[str, ...]) -> str | None:
    """The module that a ``from`` names, from the package's root."""
    if not node.level:
        name = node.module or ""
        return "" if name == house.package.name else inside(house, name)
    above = here[: len(here) - node.level + 1]
    return ".".join((*above, *([node.module] if node.module else [])))


def targets(house: House, base: str | None, names: list[str]) -> Iterator[Path]:
    """Files of the modules that are named; the package that holds a name that is no module."""
    if base is None or base not in house.modules:
        return
    if not names:
        yield house.modules[base]
    for name in names:
        yield house.modules.get(f"{base}.{name}".lstrip("."), house.modules[base])


def by_string(house: House, file: File, call: ast.Call) -> Iterator[Path]:
    """Files that ``import_module`` loads: by a literal, or by a table that stands in the file.

    A name that the caller gives names no file: a registry knows none of its entries.
    """
    text, here = call.args[0] if call.args else None, file.path.parts[:-1]
    if isinstance(text, ast.Constant) and isinstance(text.value, str):
        names = [text.value]
    elif isinstance(text, ast.JoinedStr):
        names = [str(part.value) for part in text.values if isinstance(part, ast.Constant)]
        holes = [part.value for part in text.values if isinstance(part, ast.FormattedValue)]
        names = [start + end for start in names[:1] for h in holes for end in values_of(file, h)]
    else:
        names = []
    for name in names:
        if name.startswith("."):
            yield from targets(house, ".".join((*here, name[1:])), [])
        else:
            yield from targets(house, inside(house, name), [])


def values_of(file: File, hole: ast.expr) -> list[str]:
    """What may stand in braces: the values of a dictionary of strings that the module defines."""
    if not isinstance(hole, ast.Subscript):
        return []
    for node in file.tree.body:
        names = [ast.unparse(t) for t in node.targets] if isinstance(node, ast.Assign) else []
        if ast.unparse(hole.value) in names and isinstance(node.value, ast.Dict):
            return [v.value for v in node.value.values if isinstance(v, ast.Constant)]
    return []


def circles(house: House) -> list[list[str]]:
    """Sets of files that all reach one another (Tarjan, 1972), the largest first."""
    graph, order, low, stack = imports(house), {}, {}, []
    found: list[list[str]] = []

    def visit(path: Path) -> None:
        order[path] = low[path] = len(order)
        stack.append(path)
        for target in sorted(graph.get(path, ())):
            if target not in order:
                visit(target)
            if target in stack:
                low[path] = min(low[path], low[target])
        if low[path] == order[path]:
            i = stack.index(path)
            members, stack[i:] = stack[i:], []
            if len(members) > 1:
                found.append(sorted(map(str, members)))

    for path in sorted(graph):
        if path not in order:
            visit(path)
    return sorted(found, key=len, reverse=True)


class Trace:
    """Calls of functions of a package, until `done`: the files entered, and moves between them.

    Arguments:
        package: The folder of the files.
        until_forward: Stop at the first ``forward`` in ``networks/``, instead of the first step of
            an optimizer.
    """

    def __init__(self, package: Path, *, until_forward: bool = False) -> None:
        self.package, self.until_forward = f"{package}/", until_forward
        self.importing, self.done = 0, False
        self.entered: set[str] = set()
        self.moves, self.last = 0, ""
        self.frames: list[str] = []

    def __enter__(self) -> "Trace":
        sys.setprofile(self)
        return self

    def __exit__(self, *_: Any) -> None:
        sys.setprofile(None)
        if not self.done:
            raise SystemExit("what the trace was to stop at never came: see house.py, Trace")

    def __call__(self, frame: FrameType, event: str, arg: Any) -> None:
        """What Python calls at every call and return."""
        if self.done:
            return
        code = frame.f_code
        if event == "c_call":
            self.done = not self.until_forward and is_step(arg)
        elif code.co_name == "<module>":
            self.importing += {"call": 1, "return": -1}.get(event, 0)
        elif event == "call" and not self.importing:
            self.enter(frame)

    def enter(self, frame: FrameType) -> None:
        """Count a call of a function, unless it is the last."""
        code = frame.f_code
        if not self.until_forward and "/torch/optim/" in code.co_filename:
            self.done = code.co_name == "step"
        if not self.is_ours(code):
            return
        name = code.co_filename.removeprefix(self.package)
        self.moves += name != self.last
        self.entered.add(name)
        self.last = name
        if self.until_forward and code.co_name == "forward" and name.startswith("networks/"):
            self.done, self.frames = True, self.stack(frame)

    def is_ours(self, code: CodeType) -> bool:
        """Whether it is the code of a function of the package; the body of a class is none."""
        return code.co_filename.startswith(self.package) and bool(code.co_flags & CO_OPTIMIZED)

    def stack(self, frame: FrameType | None) -> list[str]:
        """The package's functions that have called one another, the outermost first."""
        found: list[str] = []
        while frame is not None:
            code = frame.f_code
            if self.is_ours(code):
                place = code.co_filename.removeprefix(self.package)
                found.append(f"{place}:{frame.f_lineno} {code.co_name}")
            frame = frame.f_back
        return found[::-1]


def is_step(function: Any) -> bool:
    """Whether a function of C is a kernel of an optimizer: of PyTorch's fused ones, ours too."""
    return bool(re.fullmatch(r"_fused_(adam|adamw|sgd|adagrad)_", str(function.__name__)))


class Way(NamedTuple):
    """The way of a fit to its first step, and of a draw to the network."""

    entered: list[str]  # files before the first optimizer step
    moves: int  # between them
    frames: list[str]  # from ``sample`` to ``forward`` of the network, both included


def trace_fit(package: Path = PACKAGE) -> Way:
    """Fit an array for one step and draw, and see which way that goes."""
    sys.path.insert(0, str(package.parent))
    import numpy as np
    import torch

    import_module(package.name)
    library = sys.modules[package.name]
    if Path(str(library.__file__)).parent != package:
        raise SystemExit(f"{package.name} was imported from {library.__file__}, not {package}")
    torch.set_num_threads(1)
    x = np.random.default_rng(0).normal(size=(400, 2))
    with Trace(package) as fit:
        model = library.fit(x, "flow_matching", steps=1, seed=0, progress=False)
    with Trace(package, until_forward=True) as draw:
        model.sample(4, seed=0, steps=2)
    return Way(sorted(fit.entered), fit.moves, draw.frames)


def measure(house: House) -> dict[str, Any]:
    """All measures that the files alone give, by name."""
    return {
        "core_files": len(house.core),
        "core_lines": count_lines(house.core),
        "files": len(house.files),
        "lines": count_lines(house.files),
        "longest": longest_function(house)._asdict(),
        "longest_counted": longest_counted(house)._asdict(),
        "most": most_parameters(house, doors=True)._asdict(),
        "most_counted": most_parameters(house)._asdict(),
        "one_word": one_word(house),
        "participles": participles(house),
        "repeated": repeated(house),
        "definitions": len(definitions(house)),
        "one_line_docstrings": one_line_docstrings(house),
        "circles": circles(house),
        "long_files": long_files(house),
        "law": word_count(house, "laws?"),
        "distribution": word_count(house, "distribution"),
    }


def rows(found: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """Lines of the table: measure, value, what is to be reached, and where."""

    def share(name: str) -> str:
        return f"{found[name]:.1%}"

    long, counted, circles = found["longest"], found["longest_counted"], found["circles"]
    most, inner, above = found["most"], found["most_counted"], found["long_files"]
    sizes = f"of {', '.join(str(len(circle)) for circle in circles)} files" if circles else ""
    core = f"{found['core_files']}, {found['core_lines']:,}"
    repeated = f"{found['repeated']} of {found['definitions']:,}"
    lines = [
        ("files, lines of the core", core, "170, 26,500", ""),
        ("files, lines in all", f"{found['files']}, {found['lines']:,}", "", ""),
        ("code lines of a function", str(long["total"]), "", long["where"]),
        ("the same, of doors the body", str(counted["length"]), "40", counted["where"]),
        ("parameters of a function", str(most["parameters"]), "", most["where"]),
        ("the same, without doors", str(inner["parameters"]), "8", inner["where"]),
        ("function names of one word", share("one_word"), "< 35 %", ""),
        ("named by a participle", share("participles"), "< 3 %", ""),
        ("defined more than once", repeated, "< 60", "functions and classes"),
        ("one-line docstrings", share("one_line_docstrings"), "", "not those that paraphrase"),
        ("import circles", str(len(circles)), "0", sizes),
        (f"files above {LONGEST_FILE} lines", str(len(above)), "0", ", ".join(above)),
        ('"law", "distribution"', f"{found['law']}, {found['distribution']}", "", "law in theory"),
    ]
    if "entered" in found:
        lines += [
            ("files before the first step", str(len(found["entered"])), "30", "of pf.fit(array)"),
            ("moves between them", str(found["moves"]), "", ""),
            ("frames from sample to network", str(len(found["frames"])), "10", ""),
        ]
    return lines


def to_text(lines: list[tuple[str, str, str, str]]) -> str:
    """Lines as a table."""
    lines = [("measure", "value", "to reach", "where, what"), *lines]
    widths = [max(len(line[i]) for line in lines) for i in range(3)]
    cells = [[f"{cell:{w}}" for cell, w in zip(line, widths)] + [line[3]] for line in lines]
    return "\n".join(" | ".join(row).rstrip(" |") for row in cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("package", nargs="?", type=Path, default=PACKAGE, help="its folder")
    parser.add_argument("--fit", action="store_true", help="also run a fit and a draw")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    chosen = parser.parse_args()
    house = House(chosen.package)
    found = measure(house) | (trace_fit(house.package)._asdict() if chosen.fit else {})
    print(json.dumps(found, indent=1) if chosen.json else to_text(rows(found)))


if __name__ == "__main__":
    main()
