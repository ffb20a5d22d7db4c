"""Code that marks what it takes.

A mark is a statement, `amphora_marks[7] = 1`.  It stands before each statement of the code, and so
begins each side of each branch; a side that is not written, such as most ifs' else, is added.
A mark has the position of the statement after it, so tracebacks show nothing of it.

What a mark means is a list of pairs of lines: (7, 7) is line 7, (7, 9) the side of the branch in
line 7 that begins in line 9, and (7, -9) the other side, where that is not written.
"""

from __future__ import annotations

import ast
from types import CodeType

Meaning = list[tuple[int, int]]

# They have branches too, but amphora has none of them.
UNKNOWN = ast.TryStar | ast.AsyncFor | ast.AsyncWith | ast.AsyncFunctionDef


def mark(source: bytes, filename: str, first: int) -> tuple[CodeType, list[Meaning]]:
    """Return the code of a file with marks, and what each of them means.

    Args:
        source: the file's text.
        filename: its path, for tracebacks.
        first: the number of its first mark.
    """
    tree = ast.parse(source, filename)
    marking = _Marking(first)
    tree.body = marking.suite(tree.body, [])
    begins = next((n for n, each in enumerate(tree.body) if not _comes_first(each)), 0)
    # A name of the module's own: those that are added to Python's end before all modules do.
    tree.body[begins:begins] = ast.parse("from builtins import amphora_marks").body
    return compile(tree, filename, "exec", dont_inherit=True), marking.meanings


class _Marking:
    def __init__(self, first: int) -> None:
        self._first = first
        self.meanings: list[Meaning] = []

    def suite(self, statements: list[ast.stmt], meaning: Meaning) -> list[ast.stmt]:
        """Return a suite with marks; the first of them means this as well."""
        marked: list[ast.stmt] = []
        for statement in statements:
            meaning += [(line, line) for line in _lines(statement)]
            if not _comes_first(statement):
                marked.append(self._mark(meaning, statement))
                meaning = []
            self._inside(statement)
            marked.append(statement)
        if meaning and statements:
            marked.append(self._mark(meaning, statements[-1]))
        return marked

    def _inside(self, statement: ast.stmt) -> None:
        if isinstance(statement, UNKNOWN):
            raise NotImplementedError(f"{type(statement).__name__} in line {statement.lineno}")
        if isinstance(statement, ast.If | ast.For | ast.While):
            line, begins = statement.lineno, _lines(statement.body[0])[0]
            statement.body = self.suite(statement.body, [(line, begins)])
            if statement.orelse:
                begins = _lines(statement.orelse[0])[0]
                statement.orelse = self.suite(statement.orelse, [(line, begins)])
            else:
                statement.orelse = [self._mark([(line, -begins)], statement)]
        elif isinstance(statement, ast.Match):
            self._inside_match(statement)
        elif isinstance(statement, ast.Try):
            statement.body = self.suite(statement.body, [])
            for number, handler in enumerate(statement.handlers, 1):
                # Those before it were tried.
                lines = [each.lineno for each in statement.handlers[:number]]
                handler.body = self.suite(handler.body, [(line, line) for line in lines])
            statement.orelse = self.suite(statement.orelse, [])
            statement.finalbody = self.suite(statement.finalbody, [])
        elif isinstance(statement, ast.With | ast.FunctionDef | ast.ClassDef):
            statement.body = self.suite(statement.body, [])

    def _inside_match(self, statement: ast.Match) -> None:
        line = statement.lineno
        # The lines of the patterns that were tried, and the way from each to the next.
        tried: Meaning = []
        for case in statement.cases:
            tried += [(line, case.pattern.lineno), (case.pattern.lineno, case.pattern.lineno)]
            line, begins = case.pattern.lineno, _lines(case.body[0])[0]
            case.body = self.suite(case.body, [*tried, (line, begins)])
        if not _matches_all(statement.cases[-1]):
            anything = ast.copy_location(ast.MatchAs(), statement)
            mark = self._mark([*tried, (line, -begins)], statement)
            statement.cases.append(ast.match_case(anything, None, [mark]))

    def _mark(self, meaning: Meaning, before: ast.stmt) -> ast.stmt:
        number = self._first + len(self.meanings)
        self.meanings.append(meaning)
        statement = ast.parse(f"amphora_marks[{number}] = 1").body[0]
        for node in ast.walk(statement):
            ast.copy_location(node, before)
        return statement


def _lines(statement: ast.stmt) -> list[int]:
    """Return the lines that a statement begins: those of its decorators, and its own."""
    decorators = getattr(statement, "decorator_list", [])
    return [decorator.lineno for decorator in decorators] + [statement.lineno]


def _matches_all(case: ast.match_case) -> bool:
    """Return whether a case matches whatever it is asked about."""
    last = case.pattern
    while isinstance(last, ast.MatchOr):
        last = last.patterns[-1]
    while isinstance(last, ast.MatchAs) and last.pattern is not None:
        last = last.pattern
    return isinstance(last, ast.MatchAs) and case.guard is None


def _comes_first(statement: ast.stmt) -> bool:
    """Return whether no mark may stand before a statement: it may be a docstring."""
    if isinstance(statement, ast.ImportFrom):
        return statement.module == "__future__"
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
