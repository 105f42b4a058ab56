"""How mutated code comes into a process: into functions that exist already, or when its module is imported."""

from __future__ import annotations

import gc
import importlib.machinery
import importlib.util
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import _lru_cache_wrapper
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

from mutation.mutants import Mutant


class Functions:
    """The functions of some modules in this process, wherever they were imported to or wrapped."""

    def __init__(self, sources: Mapping[str, Path]) -> None:
        self._sources = {module: (str(path), path.read_text()) for module, path in sources.items()}
        self._functions: dict[tuple[str, str, int], list[FunctionType]] = defaultdict(list)
        numbers = {
            (path, name, code.co_firstlineno): number
            for path, text in self._sources.values()
            for (name, number), code in _codes(_compiled(text, path)).items()
        }
        self._caches: list[_lru_cache_wrapper[Any]] = []
        for thing in gc.get_objects():
            if isinstance(thing, _lru_cache_wrapper):
                self._caches.append(thing)
            elif isinstance(thing, FunctionType):
                code = thing.__code__
                number = numbers.get((code.co_filename, code.co_qualname, code.co_firstlineno))
                if number is not None:
                    self._functions[code.co_filename, code.co_qualname, number].append(thing)

    def replaced_by(self, mutant: Mutant) -> list[tuple[FunctionType, CodeType]] | None:
        """The functions and their code in this mutant; None if they cannot take it: it uses fewer variables around."""
        replaced = list(self._replaced(mutant))
        can = all(len(function.__code__.co_freevars) == len(new.co_freevars) for function, new in replaced)
        return replaced if can else None

    def become(self, replaced: list[tuple[FunctionType, CodeType]]) -> None:
        """Let the functions take this code, and forget what they have returned so far."""
        for function, new in replaced:
            function.__code__ = new
        for cache in self._caches:
            cache.cache_clear()

    def _replaced(self, mutant: Mutant) -> Iterator[tuple[FunctionType, CodeType]]:
        path, text = self._sources[mutant.module]
        for (name, number), new in _codes(_compiled(mutant.source(text), path)).items():
            for function in self._functions.get((path, name, number), []):
                yield function, new


class Finder:
    """Finds the one module that is mutated, when it is imported."""

    def __init__(self, path: Path, mutant: Mutant) -> None:
        self._name = "bearerd." + mutant.module.replace("/", ".").removesuffix(".__init__")
        self._path, self._text = path, mutant.source(path.read_text())

    def find_spec(self, name: str, _path: object = None, _target: ModuleType | None = None) -> Any:
        """The mutated module; None for any other."""
        if name != self._name:
            return None
        loader = _Mutated(name, str(self._path), self._text)
        return importlib.util.spec_from_file_location(name, self._path, loader=loader)


class _Mutated(importlib.machinery.SourceFileLoader):
    """Loads a module with another text, and neither reads nor writes its bytecode on disk."""

    def __init__(self, name: str, path: str, text: str) -> None:
        super().__init__(name, path)
        self._text = text

    def get_code(self, fullname: str) -> CodeType:
        return _compiled(self._text, self.get_filename(fullname))


def _compiled(text: str, path: str) -> CodeType:
    return compile(text, path, "exec", dont_inherit=True)


def _codes(module: CodeType) -> dict[tuple[str, int], CodeType]:
    """All code of a module, by its qualified name and a number among those with the same name."""
    found: dict[tuple[str, int], CodeType] = {}
    counts: dict[str, int] = defaultdict(int)
    waiting = [module]
    while waiting:
        for inner in waiting.pop(0).co_consts:
            if isinstance(inner, CodeType):
                found[inner.co_qualname, counts[inner.co_qualname]] = inner
                counts[inner.co_qualname] += 1
                waiting.append(inner)
    return found
