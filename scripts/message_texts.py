"""Finds the texts that the command line prints, in the source of zhllama: errors, progress, results.

A text is a string or an f-string at a place that reaches the user, e.g. an argument of `say` or of an error. Names are
followed to their assignments, parameters to the calls of their function, and calls to what the function returns. The
fields of an f-string become named fields, `{path}: line {line}`; a field that can only contain texts of zhllama is
followed as well, as a part.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

from zhllama.commands.translation import with_run_flags

PACKAGE = Path(__file__).parent.parent / "zhllama"
PRINTED = {
    "say",
    "note",
    "warn",
    "progress",
    "stage",  # of a progress bar, where a core function gets it alone
    "translated",
    "headings",
    "waiting",
    "error_line",
    "Promise",
    "Rejected",  # of a conversation
}  # by their arguments
PRINTED_KEYWORDS = {"reason", "remedy", "sentence", "caution", "repaid", "detail"}
PRINTED_METHODS = {"note", "notes.append", "stage", "edits.add"}
PRINTERS = {"shared.py", "translation.py"}  # define these functions
ERROR = "ZhllamaError"
LONGEST = 24  # alternatives of one text
DEEPEST = 6  # names, parameters and calls followed from one place
WORD = re.compile(r"[A-Za-z]{2}")


@dataclass
class Module:
    """A source file with its top-level names."""

    path: Path
    tree: ast.Module
    functions: dict[str, list[ast.FunctionDef]] = field(default_factory=dict)
    values: dict[str, list[ast.expr]] = field(default_factory=dict)
    imports: dict[str, tuple[str, str]] = field(default_factory=dict)
    parents: dict[ast.AST, ast.AST] = field(default_factory=dict)


@dataclass(frozen=True)
class Found:
    """A text, the file it is in, and whether it only occurs inside others."""

    text: str
    file: str
    part: bool


class Texts:
    """All texts of the package."""

    def __init__(self, package: Path = PACKAGE) -> None:
        self._modules = {
            ".".join(path.relative_to(package.parent).with_suffix("").parts): _module(path)
            for path in sorted(package.rglob("*.py"))
        }
        self._root = package.parent
        self._errors = self._error_classes()
        self._members, self._called = self._found_members(), self._found_methods()
        self.found: dict[tuple[str, bool], set[str]] = {}
        self.unknown: list[str] = []
        self._parts_seen: set[int] = set()
        for module in self._modules.values():
            if module.path.name in PRINTERS:
                continue
            for call in (node for node in ast.walk(module.tree) if isinstance(node, ast.Call)):
                for argument in self._printed(call):
                    self._add(argument, module)

    def _error_classes(self) -> set[str]:
        known, before = {ERROR}, 0
        classes = [n for m in self._modules.values() for n in ast.walk(m.tree) if isinstance(n, ast.ClassDef)]
        while len(known) > before:
            before = len(known)
            known |= {c.name for c in classes if any(_name(base) in known for base in c.bases)}
        return known

    def _printed(self, call: ast.Call) -> Iterator[ast.expr]:
        """The arguments of a call that reach the user."""
        name = _name(call.func)
        if ast.unparse(call.func) == "super().__init__" and self._class_of(call) in self._errors - {ERROR}:
            name = ERROR
        if name in self._errors and name != "MissingPackage":
            # The place of an OptionError is an option with its value, that of others mostly a path.
            if (
                name != "OptionError"
                and call.args
                and isinstance(call.args[0], ast.Constant | ast.JoinedStr | ast.IfExp)
            ):
                texts, _ = self._texts(call.args[0], self._module_of(call), 0)
                if any(" " in FIELDS.sub("", text).strip() for text in texts):
                    yield call.args[0]
            yield from (argument for argument in call.args[1:] if not isinstance(argument, ast.Starred))
            for starred in call.args[1:]:
                if isinstance(starred, ast.Starred):
                    yield starred.value
        elif (name in PRINTED and isinstance(call.func, ast.Name)) or (
            isinstance(call.func, ast.Attribute)
            and (name in PRINTED_METHODS or ast.unparse(call.func) in PRINTED_METHODS)
        ):
            yield from {"Promise": call.args[::2], "error_line": call.args, "headings": call.args}.get(
                name, call.args[:1]
            )
        yield from (k.value for k in call.keywords if k.arg in PRINTED_KEYWORDS)

    def _class_of(self, node: ast.AST) -> str | None:
        """The name of the class around a node."""
        parents = self._module_of(node).parents
        around: ast.AST | None = node
        while around is not None and not isinstance(around, ast.ClassDef):
            around = parents.get(around)
        return None if around is None else around.name

    def _module_of(self, node: ast.AST) -> Module:
        return next(m for m in self._modules.values() if node in m.parents)

    def _add(self, argument: ast.expr, module: Module, part: bool = False) -> None:
        texts, known = self._texts(argument, module, 0)
        if not known and not texts:
            place = f"{module.path.relative_to(self._root)}:{argument.lineno}"
            self.unknown.append(f"{place}: {ast.unparse(argument)}")
        for text in texts:
            self._store(text, module, part)

    def _store(self, text: str, module: Module, part: bool) -> None:
        words = _words(text)
        if WORD.search(words) and not (part and " " not in words):  # a single word names something
            self.found.setdefault((text, part), set()).add(str(module.path.relative_to(self._root)))

    def _texts(self, expr: ast.expr, module: Module, depth: int) -> tuple[list[str], bool]:
        """The texts that an expression may be, and whether these are all."""
        if depth > DEEPEST:
            return [], False
        deeper = depth + 1
        match expr:
            case ast.Constant(value=str() as text):
                return [text], True
            case ast.Constant(value=None):
                return [], True
            case ast.JoinedStr(values=values):
                return self._joined(values, module, deeper), True
            case ast.IfExp(body=body, orelse=other):
                return self._union([body, other], module, deeper)
            case ast.BoolOp(values=values):
                return self._union(values, module, deeper)
            case ast.BinOp(op=ast.Add(), left=left, right=right):
                if self._texts(left, module, deeper)[0] or self._texts(right, module, deeper)[0]:
                    return self._joined([left, right], module, deeper), True
            case ast.BinOp(op=ast.Mult(), left=ast.Constant(value=str() as text)):
                return [text, ""], True
            case ast.Tuple(elts=elements) | ast.List(elts=elements):
                return self._union(elements, module, deeper)
            case ast.ListComp(elt=element):
                return self._texts(element, module, deeper)
            case ast.Dict(values=values):
                return self._union(values, module, deeper)
            case ast.NamedExpr(value=value) | ast.Starred(value=value):
                return self._texts(value, module, deeper)
            case ast.Subscript(value=value):
                return self._texts(value, module, deeper)
            case ast.Call(func=ast.Attribute(value=value, attr="strip"), args=[]):
                texts, known = self._texts(value, module, deeper)
                return list(dict.fromkeys(text.strip() for text in texts)), known
            case ast.Call(
                func=ast.Attribute(value=value, attr="rstrip" | "strip" | "replace" | "get" | "format")
            ):
                return self._texts(value, module, deeper)
            case ast.Call(func=ast.Name(id="str"), args=[value]):
                return self._texts(value, module, deeper)
            case ast.Call(func=ast.Name(id=name)) if name not in PRINTED:
                returned = [
                    (r.value, m)
                    for f, m in self._functions(name, module)
                    for r in _returns(f)
                    if r.value is not None
                ]
                return self._all(returned, deeper)
            case ast.Name(id=name):
                return self._named(expr, name, module, deeper)
            case ast.Call(func=ast.Attribute(attr=name)) if name in self._called:
                return self._all([self._called[name]], deeper)
            case ast.Attribute(attr=name) if name in self._members:
                texts, known = self._all([self._members[name]], deeper)
                return [text for text in texts if " " in text], known  # a single word names something
        return [], False

    def _found_members(self) -> dict[str, tuple[ast.expr, Module]]:
        """What a member of an object may be, where one place says it: the value of a property, or an argument of a class."""
        found: dict[str, list[tuple[ast.expr, Module]]] = {}
        for module in self._modules.values():
            if module.path.parent.name == "commands":
                continue
            for node in ast.walk(module.tree):
                if isinstance(node, ast.FunctionDef) and "property" in map(_name, node.decorator_list):
                    found.setdefault(node.name, []).append((_returned(node), module))
                elif isinstance(node, ast.Call) and _name(node.func)[:1].isupper():
                    for keyword in node.keywords:
                        found.setdefault(keyword.arg or "", []).append((keyword.value, module))
        return _only(found)

    def _found_methods(self) -> dict[str, tuple[ast.expr, Module]]:
        """What a method of some object returns, where one function of a module has its name."""
        found: dict[str, list[tuple[ast.expr, Module]]] = {}
        for module in self._modules.values():
            for node in module.tree.body:
                if isinstance(node, ast.FunctionDef):
                    found.setdefault(node.name, []).append((_returned(node), module))
        return _only(found)

    def _union(self, expressions: list[ast.expr], module: Module, depth: int) -> tuple[list[str], bool]:
        return self._all([(e, module) for e in expressions], depth)

    def _all(self, expressions: list[tuple[ast.expr, Module]], depth: int) -> tuple[list[str], bool]:
        results = [self._texts(e, m, depth) for e, m in expressions]
        texts = list(dict.fromkeys(text for found, _ in results for text in found))
        return texts, bool(results) and all(known for _, known in results)

    def _named(self, expr: ast.expr, name: str, module: Module, depth: int) -> tuple[list[str], bool]:
        function = module.parents.get(expr)
        while function is not None and not isinstance(function, ast.FunctionDef):
            function = module.parents.get(function)
        if isinstance(function, ast.FunctionDef):
            local = [(value, module) for value in _assigned(function, name)]
            if local:
                return self._all(local, depth)
            names = [a.arg for a in (*function.args.posonlyargs, *function.args.args)]
            keywords = [a.arg for a in function.args.kwonlyargs]
            if name in names or name in keywords:
                place = names.index(name) if name in names else None
                if names and names[0] in ("self", "cls") and place is not None:
                    place -= 1
                return self._all(list(self._arguments(function, name, place, module)), depth)
        if name in module.values:
            return self._all([(value, module) for value in module.values[name]], depth)
        if name in module.imports:
            source, original = module.imports[name]
            if (other := self._modules.get(source)) and original in other.values:
                return self._all([(value, other) for value in other.values[original]], depth)
        return [], False

    def _arguments(
        self, function: ast.FunctionDef, name: str, place: int | None, module: Module
    ) -> Iterator[tuple[ast.expr, Module]]:
        """What calls give for a parameter; of a private function, calls in its own module."""
        modules = [module] if function.name.startswith("_") else list(self._modules.values())
        called = function.name
        if called == "__init__":
            owner = module.parents[function]
            called = owner.name if isinstance(owner, ast.ClassDef) else called
        for other in modules:
            if other is not module and called not in other.imports:
                continue
            for call in (
                n for n in ast.walk(other.tree) if isinstance(n, ast.Call) and _name(n.func) == called
            ):
                given = [k.value for k in call.keywords if k.arg == name]
                if place is not None and place < len(call.args):
                    given.append(call.args[place])
                yield from ((value, other) for value in given)

    def _functions(self, name: str, module: Module) -> Iterator[tuple[ast.FunctionDef, Module]]:
        yield from ((f, module) for f in module.functions.get(name, []))
        if name in module.imports:
            source, original = module.imports[name]
            if other := self._modules.get(source):
                yield from ((f, other) for f in other.functions.get(original, []))

    def _joined(self, values: list[ast.expr], module: Module, depth: int) -> list[str]:
        """The texts of an f-string: alternatives inside it are written out, everything else is a named field."""
        pieces: list[list[str]] = []
        names: dict[str, str] = {}
        # `{value} {problem}` would match any text: the texts of its fields are written out instead.
        own = "".join(v.value for v in values if isinstance(v, ast.Constant) and isinstance(v.value, str))
        wordless = not WORD.search(own)
        for value in values:
            inner = value.value if isinstance(value, ast.FormattedValue) else value
            if isinstance(inner, ast.Constant) and isinstance(inner.value, str):
                pieces.append([inner.value])
                continue
            texts, known = self._texts(inner, module, depth)
            inline = isinstance(inner, ast.IfExp | ast.BinOp | ast.JoinedStr) and known
            if (inline and len(texts) <= 4) or (
                wordless and texts and any(map(WORD.search, map(_words, texts)))
            ):
                pieces.append(texts)
                continue
            for text in texts:
                self._store(text, module, part=True)
            pieces.append(["{" + _field_name(inner, names) + "}"])
        combined = ["".join(chosen) for chosen in product(*pieces)][:LONGEST]
        return list(dict.fromkeys(combined))


FIELDS = re.compile(r"\{\w+\}|`\w+`")


def _distinct(text: str) -> str:
    """A text whose fields all have different names: `{dead} as {dead}` becomes `{dead} as {dead_2}`."""
    seen: dict[str, int] = {}

    def name(field: re.Match[str]) -> str:
        number = seen[field[1]] = seen.get(field[1], 0) + 1
        return field[0] if number == 1 else f"{{{field[1]}_{number}}}"

    return re.sub(r"\{(\w+)\}", name, text)


def _words(text: str) -> str:
    """A text without its fields."""
    return FIELDS.sub("", text)


def printed_texts() -> dict[tuple[str, bool], list[str]]:
    """Every text with its files, by text and whether it is a part.

    Options in backticks become fields, but those of every run are printed under the same flag everywhere.
    """
    result: dict[tuple[str, bool], set[str]] = {}
    for (text, part), files in Texts().found.items():
        flat = _distinct(re.sub(r"`\{?(\w+)\}?`", r"{\1}", with_run_flags(text)))
        result.setdefault((flat, part), set()).update(files)
    return {key: sorted(files) for key, files in sorted(result.items())}


def _module(path: Path) -> Module:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    module = Module(path, tree)
    for node in ast.walk(tree):
        for child in ast.iter_child_nodes(node):
            module.parents[child] = node
        if isinstance(node, ast.FunctionDef):
            module.functions.setdefault(node.name, []).append(node)
        elif isinstance(node, ast.ImportFrom) and node.module:
            module.imports.update({a.asname or a.name: (node.module, a.name) for a in node.names})
    for node in tree.body:
        if isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Name):
                    module.values.setdefault(target.id, []).append(node.value)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value:
            module.values.setdefault(node.target.id, []).append(node.value)
    return module


def _name(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def _returns(function: ast.FunctionDef) -> list[ast.Return]:
    return [node for node in ast.walk(function) if isinstance(node, ast.Return)]


def _returned(function: ast.FunctionDef) -> ast.expr:
    """All that a function may return, as one list."""
    return ast.List([r.value for r in _returns(function) if r.value is not None], ast.Load())


def _only(found: dict[str, list[tuple[ast.expr, Module]]]) -> dict[str, tuple[ast.expr, Module]]:
    """Those of which there is one."""
    return {name: places[0] for name, places in found.items() if len(places) == 1}


def _assigned(function: ast.FunctionDef, name: str) -> Iterator[ast.expr]:
    """What a function assigns to a local name, also by unpacking and in loops over literals."""
    for node in ast.walk(function):
        if (
            isinstance(node, ast.Assign | ast.AnnAssign | ast.NamedExpr | ast.AugAssign)
            and node.value is not None
        ):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for target in targets:
                yield from _unpacked(target, node.value, name)
        elif isinstance(node, ast.For) and isinstance(node.iter, ast.Call):
            yield from _unpacked(node.target, node.iter, name)
        elif isinstance(node, ast.For | ast.comprehension):
            for one in node.iter.elts if isinstance(node.iter, ast.Tuple | ast.List) else []:
                yield from _unpacked(node.target, one, name)


def _unpacked(target: ast.expr, value: ast.expr, name: str) -> Iterator[ast.expr]:
    if isinstance(target, ast.Name) and target.id == name:
        yield value
    elif (
        isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple) and len(target.elts) == len(value.elts)
    ):
        for one, part in zip(target.elts, value.elts, strict=True):
            yield from _unpacked(one, part, name)
    elif isinstance(target, ast.Tuple) and isinstance(value, ast.IfExp):
        yield from _unpacked(target, value.body, name)
        yield from _unpacked(target, value.orelse, name)


def _field_name(expr: ast.expr, names: dict[str, str]) -> str:
    """A readable name for a field of an f-string, the same for the same expression."""
    source = ast.unparse(expr)
    if source in names:
        return names[source]
    words = [
        n.id if isinstance(n, ast.Name) else n.attr
        for n in ast.walk(expr)
        if isinstance(n, ast.Name | ast.Attribute)
    ]
    keys = [
        n.slice.value
        for n in ast.walk(expr)
        if isinstance(n, ast.Subscript) and isinstance(n.slice, ast.Constant)
    ]
    if isinstance(expr, ast.Call) and words:  # len(rows): rows
        words = words[1:] or words
    name = next(
        (k for k in keys if isinstance(k, str) and k.isidentifier()), next(iter(words), "value")
    ).strip("_")
    taken, number = set(names.values()), 1
    chosen = name
    while chosen in taken:
        number += 1
        chosen = f"{name}{number}"
    names[source] = chosen
    return chosen
