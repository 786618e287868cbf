"""The large scale is a rule (HOUSE.md), so it is tested: sizes, names, circles, words, doors.

A diff shows the small scale of a library and hides the large one; here it is measured as a whole,
with the functions of `benchmarks/house.py`, whose table says how far there is to go. The numbers
are goals. A test that fails lists what stands in its way; none of them is met by a larger number
or a longer list of exceptions unless the exception is argued where it stands. The order of the
layers is in `test_layers.py`.
"""

import ast
import importlib
import inspect
import json
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import typer

import pushforward as pf

PACKAGE = Path(pf.__file__).parent
ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))
house = importlib.import_module("house")

# what Python, the installer or the command line finds by its name: nobody else need use it
FOUND_BY_NAME = {"main"}  # pyproject.toml, project.scripts

BANNED = {
    "law": r"laws?",
    "picture": r"pictures?",
    "garment": r"garments?",
    "fill": r"fills|(?:an?|the|each|every|per|one|no|another)\s+fill",
    "told": r"told",
    "by heart": r"by\s+heart",
    "charge": r"charges?|charged",
    "wave": r"waves?",
    "grain": r"grains?|grainy",
    "companion": r"companions?",
    "hasten": r"hasten\w*",
}
ALLOWED = {  # where a banned word is meant literally, or names something that stays
    r"(?:conservation|power) laws?|laws? of (?:large numbers|total \w+)": "terms of the field",
    r"\b(?:sine|square) waves?": "a signal",
    r"\b(?:free of|in) charge": "idioms",
    r"\.pictures\b|[`\"']pictures[`\"']": "a public attribute, and a field of the history's JSON",
    r"`(?:waves|grain)`|(?:--)?\b(?:waves|grain)=\w+": "options of families, spelled as such",
}

LITERALS = {  # a family's key as a string: in which files, on which lines, which keys, and why
    "a default of the library's, in one place": (r".", r"^(?:DEFAULT|REFERENCE) = ", r"."),
    "the same default, shown by the help": (r"^cli/", r"show_default=", r"^flow_matching$"),
    "names of diffusers' own parts": (r"^interop/", r".", r"^(?:vae|ddpm)$"),
    "the distribution of an entry, not a family": (r"^networks/", r".", r"^gaussian$"),
    "the lesson speaks of families one by one": (r"^lesson/", r".", r"."),
}

CALLED = {  # the public functions whose keywords a command offers
    "fit": ["fit"],
    "check": ["fit"],  # it reads what a fit would read
    "compare": ["compare"],
    "evaluate": ["evaluate"],
    "data": ["datasets.load"],
    "sample": ["load", "FittedModel.sample"],
    "score": ["load", "FittedModel.log_prob"],
    "encode": ["load", "FittedModel.encode"],
    "decode": ["load", "FittedModel.decode"],
    "reconstruct": ["load", "FittedModel.reconstruct"],
    "translate": ["load", "FittedModel.translate"],
    "inpaint": ["load", "FittedModel.inpaint"],
    "interpolate": ["load", "FittedModel.interpolate"],
    "edit": ["load", "FittedModel.edit"],
    "anomalies": ["load", "FittedModel.flag"],
}
PASSED_ON = {  # methods of families that take the further keywords of these commands
    "sample": ["sample", "complete"],
    "score": ["log_prob"],
    "encode": ["encode"],
    "decode": ["decode"],
    "reconstruct": ["encode", "decode"],
    "translate": ["translate"],
    "inpaint": ["complete"],
    "interpolate": ["encode", "decode"],
    "edit": ["edit"],
}
OF_A_RUN = [*PASSED_ON, "latent", "export"]
ALIASES = {  # an option whose keyword is another, or that has none, by command; "*" is every one
    ("*", "json"): None,  # how the result is printed
    ("*", "set"): None,  # all other keywords
    ("*", "quiet"): None,  # Python shows a bar where it is asked to
    ("fit", "quiet"): "progress",
    ("compare", "quiet"): "progress",
    **{(c, "condition"): "y" for c in OF_A_RUN},  # of a fit it is a column, here a value
    ("sample", "conditions"): "y",  # from a file
    # Python returns what these commands write to a file
    **{(c, "out"): None for c in [*PASSED_ON, "data", "anomalies", "plot", "latent", "lesson"]},
    ("export", "out"): "folder",
    ("export", "to"): None,  # which library's function is called
    ("anomalies", "labels"): None,  # metrics of the command's own
    ("evaluate", "condition"): "labels",  # a column of a file there, and an array in Python
    ("evaluate", "size"): None,  # of files that the command reads
    # one value in Python, Guidance(scale, interval, negative)
    **{(c, "guidance-interval"): "guidance" for c in PASSED_ON},
    **{(c, "negative"): "guidance" for c in PASSED_ON},
}


@pytest.fixture(scope="module")
def whole():
    """The parsed package."""
    return house.House(PACKAGE)


@pytest.fixture(scope="module")
def way():
    """What a fit enters, measured in a process of its own: shape checks of tests are files too."""
    script = str(ROOT / "benchmarks" / "house.py")
    done = subprocess.run(
        [sys.executable, script, str(PACKAGE), "--fit", "--json"],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def listed(rule, offenders, most=200):
    """A message: the rule, how many break it, and which."""
    lines = sorted(map(str, offenders))
    rest = [f"... and {len(lines) - most} more"] if len(lines) > most else []
    return "\n  ".join([f"{rule}: {len(lines)} in its way", *lines[:most], *rest])


def refuse(rule, offenders):
    """Fail with the list, unless it is empty."""
    offenders = list(offenders)
    assert not offenders, listed(rule, offenders)


# sizes


def test_the_core_has_at_most_170_files_and_26500_lines(whole):
    files, lines = len(whole.core), house.count_lines(whole.core)
    assert files <= 170 and lines <= 26_500, f"{files} files (170), {lines:,} lines (26,500)"


def test_no_file_is_longer_than_350_lines(whole):
    refuse(
        "a file has at most 350 lines", (f"{k}: {n}" for k, n in house.long_files(whole).items())
    )


def test_no_function_has_more_than_40_lines_of_code(whole):
    long = (f"{f.where}: {f.length}" for f in whole.functions if f.length > 40)
    refuse("a function has at most 40 code lines, at the doors without its signature", long)


def test_no_function_outside_the_doors_takes_more_than_8_parameters(whole):
    many = (
        f"{f.where}: {f.parameters}" for f in whole.functions if f.parameters > 8 and not f.door
    )
    refuse(f"a function takes at most 8 parameters, outside {sorted(house.DOORS)}", many)


# how files hang together


def test_no_import_closes_a_circle_wherever_it_stands(whole):
    refuse("the graph of files has no circle", (", ".join(c) for c in house.circles(whole)))


def test_a_fit_enters_at_most_30_files_before_its_first_step(way):
    entered = way["entered"]
    message = f"{len(entered)} files are entered before the first optimizer step, not 30"
    assert len(entered) <= 30, "\n  ".join([message, *entered])


def test_at_most_10_frames_lie_from_sample_to_the_network(way):
    frames = [f"{i}. {frame}" for i, frame in enumerate(way["frames"], 1)]
    message = f"{len(frames)} frames lie from sample to the network, not 10"
    assert len(frames) <= 10, "\n  ".join([message, *frames])


def calls(file):
    """All calls in a file."""
    return (node for node in ast.walk(file.tree) if isinstance(node, ast.Call))


def outside_families(whole):
    """The files that are to know no family."""
    return (file for file in whole.files if file.path.parts[0] != "families")


def test_nobody_asks_a_model_what_attributes_it_has(whole):
    found = []
    for file in outside_families(whole):
        for call in calls(file):
            if ast.unparse(call.func) in ("hasattr", "getattr", "setattr") and re.search(
                r"(^|[._])model$", ast.unparse(call.args[0])
            ):
                found.append(f"{file.path}:{call.lineno} {ast.unparse(call)}")
    refuse("a capability is a Protocol", found)


def test_no_family_is_named_outside_the_families(whole):
    keys, found = set(pf.families.names()), []
    for file in outside_families(whole):
        lines = file.text.splitlines()
        for node in ast.walk(file.tree):
            if not isinstance(node, ast.Constant) or node.value not in keys:
                continue
            line = lines[node.lineno - 1].strip()
            facts = (file.path.as_posix(), line, node.value)
            if not any(all(map(re.search, rule, facts)) for rule in LITERALS.values()):
                found.append(f"{file.path}:{node.lineno} {line[:100]}")
    refuse("a family is named in its own file alone", found)


def test_options_know_no_option_of_a_family(whole):
    known = {option for name in pf.families.names() for option in pf.families.family_options(name)}
    file = next(f for f in whole.files if f.path == Path("options.py"))
    words = {n.value for n in ast.walk(file.tree) if isinstance(n, ast.Constant)}
    refuse("a range stands at its option, not in options.py", words & known)


# names


def test_fewer_than_35_percent_of_function_names_have_one_word(whole):
    share = house.one_word(whole)
    single = sorted({n for n in house.function_names(whole) if "_" not in n.strip("_")})
    assert share < 0.35, f"{share:.1%} have one word: " + listed("< 35 %", single, most=300)


def test_fewer_than_60_definitions_share_their_name(whole):
    names = house.repeated_names(whole).items()
    lines = [f"{name}: {', '.join(places)}" for name, places in names]
    assert house.repeated(whole) < 60, f"{house.repeated(whole)} definitions: " + listed(
        "a top-level name is defined once", lines
    )


def code_of(page):
    """What a page of the documentation shows as code, its directives included."""
    text = page.read_text("utf-8")
    return " ".join(re.findall(r"^```.*?^```|`[^`\n]+`", text, flags=re.M | re.S))


def identifiers(tree):
    """Names that code uses, not those that it defines.

    A string counts where it is a name: patched by a test, or in a table of lazy imports.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.alias):
            yield from node.name.split(".")
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("setattr"):
            words = (a.value for a in node.args[:2] if isinstance(a, ast.Constant))
            yield from (part for word in words for part in str(word).split("."))
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "_PUBLIC":
            yield from ast.literal_eval(node.value)


def users(whole):
    """The files that use each name, of the source, tests, benchmarks and documentation."""
    found = {}
    trees = {PACKAGE / file.path: file.tree for file in whole.files}
    for folder in ("tests", "benchmarks", "docs"):
        trees |= {p: ast.parse(p.read_text("utf-8")) for p in (ROOT / folder).rglob("*.py")}
    for path, tree in trees.items():
        for name in identifiers(tree):
            found.setdefault(name, set()).add(path)
    for page in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md")):
        for name in re.findall(r"\w+", code_of(page)):
            found.setdefault(name, set()).add(page)
    return found


def is_family(file, node):
    """Whether a class is what a file in ``families/`` is named after, as KDE is in kde.py."""
    name = file.path.stem.replace("_", "")
    return file.path.parts[0] == "families" and node.name.lower() == name


def test_a_name_used_in_its_file_alone_begins_with_an_underscore(whole):
    used, by_name, found = users(whole), FOUND_BY_NAME | house.demanded(whole), []
    for file in whole.files:
        for node in file.top:
            free = node.name.startswith("_") or node.name in by_name
            elsewhere = used.get(node.name, set()) - {PACKAGE / file.path}
            if not (free or elsewhere or house.is_command(node) or is_family(file, node)):
                found.append(f"{file.path}:{node.lineno} {node.name}")
    refuse("what no other file uses is called _name", found)


# words


@cache
def application():
    """The command line, as its parser sees it."""
    return typer.main.get_command(importlib.import_module("pushforward.cli").app)


def commands(group=None):
    """The commands by name, those of groups too."""
    for name, command in (group or application()).commands.items():
        yield name, command
        if hasattr(command, "commands"):
            yield from commands(command)


def helps():
    """Every text of the help, and where it stands."""
    for name, command in [("pushforward", application()), *commands()]:
        yield f"help of {name}", command.help or ""
        for option in command.params:
            texts = (getattr(option, key, None) for key in ("help", "metavar", "show_default"))
            yield f"help of {name}, {option.name}", " ".join(t for t in texts if isinstance(t, str))


def is_message(node):
    """Whether code says something to the user: it raises, makes an error, or warns."""
    if isinstance(node, ast.Raise):
        return True
    function = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
    return function.endswith(("Error", "warnings.warn")) or function == "warn"


def messages(whole):
    """Every text of an error or a warning, and where it stands."""
    for file in whole.files:
        texts = {}  # by place, since a raise holds the call that makes its error
        for node in filter(is_message, ast.walk(file.tree)):
            for part in ast.walk(node):
                if isinstance(part, ast.Constant) and isinstance(part.value, str):
                    texts[part.lineno, part.col_offset] = part.value
        yield from ((f"{file.path}:{line}", text) for (line, _), text in sorted(texts.items()))


def pages():
    """Every line of the documentation, and where it stands."""
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))):
        for i, line in enumerate(page.read_text("utf-8").splitlines(), 1):
            yield f"{page.relative_to(ROOT)}:{i}", line


@pytest.mark.parametrize("word", BANNED)
def test_a_private_word_is_nowhere_that_users_read(word, whole):
    literal = re.compile("|".join(ALLOWED), flags=re.I)
    banned = re.compile(rf"\b(?:{BANNED[word]})\b", flags=re.I)
    found = []
    for where, text in (*helps(), *messages(whole), *pages()):
        if hit := banned.search(literal.sub("", text)):
            found.append(f"{where} ...{hit.string[max(hit.start() - 40, 0) : hit.end() + 30]}...")
    refuse(f"help, errors, README and docs say it in the field's words, not {word!r}", found)


# the command line and Python


def parameters(whole, function):
    """The keywords of a parsed function, with those of a TypedDict that it unpacks."""
    a = function.args
    names = {p.arg for p in (*a.posonlyargs, *a.args, *a.kwonlyargs)}
    rest = ast.unparse(a.kwarg.annotation) if a.kwarg and a.kwarg.annotation else ""
    groups = re.findall(r"\w+", rest) if "Unpack" in rest else []
    for node in (n for file in whole.files for n in file.top if n.name in groups):
        names |= {n.target.id for n in node.body if isinstance(n, ast.AnnAssign)}
    return names


def public(name):
    """The keywords of a public function, ``FittedModel.sample`` or ``datasets.load``."""
    target = pf
    for part in name.split("."):
        target = getattr(target, part)
    return set(inspect.signature(target).parameters)


def methods(whole, names):
    """The keywords that methods of these names take in any family, or in what families share."""
    found = set()
    for file in whole.files:
        if file.path.parts[0] == "families" or len(file.path.parts) == 1:
            for node in ast.walk(file.tree):
                if isinstance(node, house.FUNCTIONS) and node.name in names:
                    found |= parameters(whole, node)
    return found


def called_by(whole, command):
    """The keywords of whatever a command's function imports or calls, for those not public."""
    top = [node for file in whole.files for node in file.top if isinstance(node, house.FUNCTIONS)]
    node = next(n for n in top if n.name == command.callback.__name__ and house.is_command(n))
    names = set(identifiers(ast.Module(node.body, [])))
    others = (n for n in top if n.name in names and not house.is_command(n))
    return {p for other in others for p in parameters(whole, other)}


def keywords(whole, name, command):
    """The keywords that an option of a command may be called by."""
    if name not in CALLED:
        return called_by(whole, command)
    found = {p for target in CALLED[name] for p in public(target)}
    return found | methods(whole, PASSED_ON.get(name, ()))


def test_every_option_of_a_command_is_called_as_its_keyword(whole):
    found = []
    for name, command in commands():
        known = keywords(whole, name, command)
        for option in command.params:
            if option.param_type_name != "option" or getattr(option, "hidden", False):
                continue
            spellings = [word.lstrip("-") for word in option.opts]
            if known & {word.replace("-", "_") for word in spellings}:
                continue
            keys = [(c, w) for c in (name, "*") for w in spellings if (c, w) in ALIASES]
            if not keys:
                found.append(f"{name} --{spellings[0]}: no keyword of {CALLED.get(name, name)}")
            elif ALIASES[keys[0]] not in known | {None}:
                found.append(f"{name} --{spellings[0]}: {ALIASES[keys[0]]} is no keyword either")
    refuse("an option is its Python keyword, or stands in ALIASES", found)
