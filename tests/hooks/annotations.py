"""The import hook by which annotations are checked while tests run: types, and shapes too.

It does what jaxtyping's own does, at a fraction of the time. That one checks every call twice,
binds the arguments of every function to its signature, whether it has shapes or not, and while a
module that it checks is imported, compiles anew whatever that module imports, torch included.
"""

import ast
import functools
import inspect
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import is_dataclass
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import CodeType, FunctionType, ModuleType
from typing import Any, get_args, get_type_hints

from beartype import BeartypeConf, beartype
from jaxtyping import AbstractArray, TypeCheckError, jaxtyped

CONF = BeartypeConf(violation_type=TypeCheckError)
_scope = jaxtyped("context")


def install(modules: Collection[str]) -> None:
    """Check the functions and the dataclasses of ``modules`` from their import on."""
    sys.meta_path.insert(0, _Finder(frozenset(modules)))


def checked(made: Any) -> Any:
    """``made``, a function or a class, with calls that raise TypeCheckError where an argument or
    what is returned is not as annotated, or where one letter stands for two sizes."""
    if inspect.isclass(made):
        if is_dataclass(made) and "__init__" in vars(made):
            made.__init__ = _function(made.__init__)  # type: ignore[misc]
        return made
    return _function(made)


def _function(function: FunctionType) -> Callable[..., Any]:
    if inspect.isgeneratorfunction(function):  # its values are nobody's to check
        made: Callable[..., Any] = jaxtyped(function, typechecker=beartype(conf=CONF))
        return made
    hints = _hints(function)
    plain = FunctionType(
        function.__code__,
        function.__globals__,
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    plain.__kwdefaults__, plain.__annotations__ = function.__kwdefaults__, hints
    plain.__qualname__, plain.__module__ = function.__qualname__, function.__module__
    typed = beartype(plain, conf=CONF)
    if typed is plain:
        return function
    if not any(_has_shape(hint) for hint in hints.values()):
        return functools.update_wrapper(typed, function)

    @functools.wraps(function)
    def in_scope(*arguments: Any, **options: Any) -> Any:
        with _scope:  # in which a letter has one size
            return typed(*arguments, **options)

    return in_scope


def _hints(function: FunctionType) -> dict[str, Any]:
    """The annotations of ``function``; of those that name what is imported for types alone, Any."""
    try:
        return get_type_hints(function, include_extras=True)
    except Exception:
        return {name: _hint(a, function) for name, a in function.__annotations__.items()}


def _hint(annotation: Any, function: FunctionType) -> Any:
    def alone() -> None: ...

    alone.__annotations__ = {"hint": annotation}
    try:
        return get_type_hints(alone, function.__globals__, include_extras=True)["hint"]
    except Exception:
        return Any


def _has_shape(hint: Any) -> bool:
    if isinstance(hint, list):  # the arguments of a Callable
        return any(_has_shape(item) for item in hint)
    of_array = inspect.isclass(hint) and issubclass(hint, AbstractArray)
    return of_array or any(_has_shape(item) for item in get_args(hint))


class _Finder(MetaPathFinder):
    def __init__(self, modules: frozenset[str]) -> None:
        self.modules = modules

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name not in self.modules:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


class _Loader(SourceFileLoader):
    def get_code(self, fullname: str) -> CodeType:
        """From the source, whatever bytecode lies beside it: that has no checks."""
        path = self.get_filename(fullname)
        tree = _Decorating().visit(ast.parse(self.get_data(path), path))
        code: CodeType = compile(ast.fix_missing_locations(tree), path, "exec", dont_inherit=True)
        return code

    def exec_module(self, module: ModuleType) -> None:
        vars(module)[_NAME] = checked
        super().exec_module(module)


_NAME = "__checked__"


class _Decorating(ast.NodeTransformer):
    """Functions are checked below their other decorators, which may drop annotations; dataclasses
    above theirs, which make ``__init__``."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        node.decorator_list.append(self._decorator(node))
        self.generic_visit(node)
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.ClassDef:
        if node.decorator_list:
            node.decorator_list.insert(0, self._decorator(node))
        self.generic_visit(node)
        return node

    @staticmethod
    def _decorator(node: ast.stmt) -> ast.expr:
        return ast.copy_location(ast.Name(_NAME, ast.Load()), node)
