r"""Floor 2: the words of a line: quotes, the escape character, and variables as Docker replaces them.

Owns: $x, ${x}, ${x:-y}, ${x:+y}, ${x:?y} (each without the colon too), ${x#y}, ${x%y}, ${x/y/z}; what is
in single quotes stays as it is.  A variable that is not set is empty.

Read: Docker's "Dockerfile reference", Environment replacement; sh(1p), Parameter Expansion.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from labkit.errors import BadInput

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*|[0-9]+|[@*#?$!-]")
SPACE = " \t\r\n\v\f"


def raw_words(text: str, escape: str = "\\") -> list[str]:
    """Split at white space outside of quotes; quotes and escapes stay. An open quote reaches to the end."""
    found, word, quote, at, inside = list[str](), "", "", 0, False
    while at < len(text):
        char = text[at]
        at += 1
        if char == escape and quote != "'" and at < len(text):
            word, inside = word + char + text[at], True
            at += 1
        elif quote:
            word += char
            quote = "" if char == quote else quote
        elif char in SPACE:
            if inside:
                found.append(word)
            word, inside = "", False
        else:
            word, inside = word + char, True
            quote = char if char in "'\"" else ""
    return [*found, word] if inside else found


def expand(text: str, variables: Mapping[str, str], escape: str = "\\") -> str:
    """The text as one word: variables replaced, quotes and escapes taken away. Raises BadInput."""
    return _Reader(text, variables, escape).whole()


def expand_words(text: str, variables: Mapping[str, str], escape: str = "\\") -> list[str]:
    """The same, split into words at white space, that of unquoted variables too. Raises BadInput."""
    reader = _Reader(text, variables, escape)
    reader.whole()
    return reader.words()


def expand_document(text: str, variables: Mapping[str, str]) -> str:
    """A here-document: quotes are nothing special there. Raises BadInput."""
    return _Reader(text, variables, "\\", quotes=False).whole()


class _Reader:
    """A walk over the characters."""

    def __init__(self, text: str, variables: Mapping[str, str], escape: str, *, quotes: bool = True) -> None:
        self.text = text
        self.at = 0
        self.variables = variables
        self.escape = escape
        self.quotes = quotes
        self.pieces: list[tuple[str, bool]] = []  # a piece, and whether white space in it parts words

    def whole(self) -> str:
        return self._until("")

    def words(self) -> list[str]:
        """What was read, as words; two quotes with nothing between are a word too."""
        found, word, inside = list[str](), "", False
        for piece, splits in self.pieces:
            if not splits:
                word, inside = word + piece, True
                continue
            for char in piece:
                if char not in SPACE:
                    word, inside = word + char, True
                elif inside:
                    found.append(word)
                    word, inside = "", False
        return [*found, word] if inside else found

    # --- characters ----------------------------------------------------------------------

    def _peek(self) -> str:
        return self.text[self.at : self.at + 1]

    def _next(self) -> str:
        char = self._peek()
        self.at += 1
        return char

    def _until(self, stop: str) -> str:
        """Read on to the character `stop` (taken too), or to the end. Raises BadInput when it does not come."""
        start = len(self.pieces)
        while char := self._next():
            if char == stop:
                return self._since(start)
            if char == "$":
                self._keep(self._variable(), splits=True)
            elif char == "'" and self.quotes:
                end = self.text.find("'", self.at)
                if end < 0:
                    raise _wrong(self.text, "a single quote is open")
                self._keep(self.text[self.at : end], splits=False)
                self.at = end + 1
            elif char == '"' and self.quotes:
                self._keep(self._double_quoted(), splits=False)
            elif char == self.escape:
                self._escaped()
            else:
                self._keep(char, splits=True)
        if stop:
            raise _wrong(self.text, f"a {stop} is missing")
        return self._since(start)

    def _escaped(self) -> None:
        char = self._next()
        if self.quotes or char in ("$", self.escape):
            self._keep(char, splits=False)
        else:
            self._keep(self.escape + char, splits=False)

    def _keep(self, piece: str, *, splits: bool) -> None:
        self.pieces.append((piece, splits))

    def _since(self, start: int) -> str:
        return "".join(piece for piece, _ in self.pieces[start:])

    def _double_quoted(self) -> str:
        text = ""
        while char := self._next():
            if char == '"':
                return text
            if char == "$":
                text += self._variable()
            elif char == self.escape:
                following = self._next()
                text += following if following in ('"', "$", self.escape) else self.escape + following
            else:
                text += char
        raise _wrong(self.text, "a double quote is open")

    # --- variables -----------------------------------------------------------------------

    def _variable(self) -> str:
        if self._peek() != "{":
            name = self._name()
            return self._value(name) if name else "$"
        self.at += 1
        name = self._name()
        if not name:
            raise _wrong(self.text, "${ needs a name")
        how = self._next()
        if how == "}":
            return self._value(name)
        if how == ":":
            how = self._next()
            if how not in ("-", "+", "?"):
                raise _wrong(self.text, f"${{{name}:{how} is not known")
            return self._choose(name, how, bool(self.variables.get(name)))
        if how in ("-", "+", "?"):
            return self._choose(name, how, name in self.variables)
        if how in ("#", "%"):
            return self._cut(name, how)
        if how == "/":
            return self._replace(name)
        raise _wrong(self.text, f"${{{name}{how} is not known" if how else "a } is missing")

    def _name(self) -> str:
        match = NAME.match(self.text, self.at)
        if match is None:
            return ""
        self.at = match.end()
        return match[0]

    def _value(self, name: str) -> str:
        return self.variables.get(name, "")

    def _inner(self, stop: str) -> str:
        """A word within ${...}: read, and not kept among the pieces of the line."""
        start = len(self.pieces)
        text = self._until(stop)
        del self.pieces[start:]
        return text

    def _choose(self, name: str, how: str, there: bool) -> str:
        word = self._inner("}")
        if how == "+":
            return word if there else ""
        if there:
            return self._value(name)
        if how == "?":
            raise BadInput(f"the variable {name} must be set", why=word or "${...?} asks for it",
                           next=f"--build-arg {name}=VALUE, for one that ARG names")  # fmt: skip
        return word

    def _cut(self, name: str, side: str) -> str:
        """${x#pattern}: what is shortest off the front; ## the longest; % and %% off the end."""
        longest = self._peek() == side
        self.at += longest
        value, pattern = self._value(name), re.compile(_pattern(self._inner("}")), re.DOTALL)
        lengths = range(len(value) + 1)
        for length in reversed(lengths) if longest else lengths:
            if side == "#" and pattern.fullmatch(value[:length]):
                return value[length:]
            if side == "%" and pattern.fullmatch(value[len(value) - length :]):
                return value[: len(value) - length]
        return value

    def _replace(self, name: str) -> str:
        """${x/pattern/word}: the first that fits; ${x//pattern/word} all of them."""
        count = 1
        if self._peek() == "/":
            self.at, count = self.at + 1, 0
        pattern, word = self._inner("/"), self._inner("}")
        if not pattern:
            return self._value(name)
        return re.sub(_pattern(pattern), lambda _: word, self._value(name), count=count, flags=re.DOTALL)


def _pattern(text: str) -> str:
    """A shell's pattern as an expression: * and ? alone are special."""
    return "".join({"*": ".*", "?": "."}.get(char, re.escape(char)) for char in text)


def _wrong(text: str, why: str) -> BadInput:
    return BadInput(
        f"cannot read the words {text!r:.200}", why=why, next="quote it, or put the escape character before"
    )
