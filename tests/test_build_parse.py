"""Is a Dockerfile read as Docker reads it: lines, here-documents, words, variables, stages; and refused by name?"""

from __future__ import annotations

import shutil
import subprocess
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.errors import BadInput, LabError, NotFound, Refused
from labkit.image.build import dockerfile, lines, plan
from labkit.image.build.patterns import Patterns, compiled
from labkit.image.build.settings import Settings
from labkit.image.build.words import expand, expand_words, raw_words

FROM = "FROM base\n"


def only(text: str) -> dockerfile.Instruction:
    """The one instruction behind FROM."""
    (found,) = dockerfile.read((FROM + text).encode()).stages[0].instructions
    return found


def joined(text: str) -> list[str]:
    return [line.text for line in lines.read(text.encode(), "Dockerfile").lines]


# --- lines -------------------------------------------------------------------------------


def test_a_line_goes_on_behind_a_backslash() -> None:
    """Comments and empty lines between its parts are no part of it; white space behind the mark does not matter."""
    assert joined("RUN a \\\n# no\n   b \\  \n\n   # no\n c\nRUN d") == ["RUN a    b  c", "RUN d"]


def test_two_backslashes_end_a_line() -> None:
    """An escaped escape character is itself."""
    assert joined("RUN a \\\\\nRUN b") == ["RUN a \\\\", "RUN b"]


def test_the_escape_character_can_be_another() -> None:
    """# escape=` makes \\ a character like any other, in lines and in words."""
    assert joined("# escape=`\nRUN a `\n b\nRUN c:\\") == ["RUN a  b", "RUN c:\\"]
    read = dockerfile.read(b"# escape=`\nFROM x\nENV A=c:\\d")
    assert expand(read.stages[0].instructions[0].pairs[0][1] or "", {}, read.escape) == "c:\\d"


def test_options_and_here_documents_know_the_backslash_alone() -> None:
    """As in BuildKit's parser.go and split_command.go: # escape= is for lines that go on, variables and pairs."""
    text = b"# escape=`\nFROM x\nCOPY --exclude=a\\ b --exclude=c` d/ <<E` /\nin it\nE`\n"
    (copy,) = dockerfile.read(text).stages[0].instructions
    assert (copy.options["exclude"], copy.args) == (("a\\ b", "c`"), ("d/", "<<E`", "/"))
    assert [(each.name, each.data) for each in copy.heredocs] == [("E`", "in it\n")]


def test_a_directive_stands_at_the_top() -> None:
    """Behind a comment or an instruction it is a comment; known twice, it is refused."""
    assert joined("# hello\n# escape=`\nRUN a \\\n b") == ["RUN a  b"]
    with pytest.raises(BadInput, match="stands here twice"):
        lines.read(b"# escape=`\n# escape=`\n", "Dockerfile")
    with pytest.raises(BadInput, match="cannot be the escape"):
        lines.read(b"# escape=x\n", "Dockerfile")


def test_another_syntax_is_refused() -> None:
    """# syntax= names an image with a reader; its own is Docker's."""
    assert joined("# syntax=docker/dockerfile:1.4\nFROM a") == ["FROM a"]
    with pytest.raises(BadInput, match="syntax example/lines is not known"):
        lines.read(b"# syntax=example/lines\nFROM a", "Dockerfile")


def test_here_documents_follow_their_line() -> None:
    """Several, with tabs off, quoted or not; what looks like one in a shell's words and is none, is none."""
    found = lines.read(b'COPY <<A <<-"B" /x/\na\n\tb\nA\n\t\tc\n\tB\nRUN cat <<<x\n', "Dockerfile").lines
    assert [(each.name, each.data, each.expand) for each in found[0].heredocs] == [
        ("A", "a\n\tb\n", True),
        ("B", "c\n", False),
    ]
    assert (found[0].place.first, found[0].place.last, found[1].heredocs) == (1, 6, ())
    assert joined("RUN echo '<<EOF'\nRUN b") == ["RUN echo '<<EOF'", "RUN b"]
    with pytest.raises(BadInput, match=r"Dockerfile:2: the here-document EOF has no end"):
        lines.read(b"FROM a\nRUN <<EOF\nx\n", "Dockerfile")


def test_windows_lines_and_a_mark_of_byte_order_are_read() -> None:
    """Editors leave both."""
    assert joined("\ufeffFROM a\r\nRUN b \\\r\n c\r\n") == ["FROM a", "RUN b  c"]


def test_what_is_no_text_is_refused_with_its_line() -> None:
    """Bytes that are no UTF-8, and a byte 0, which no argument of a program can hold."""
    for byte in (b"\xff", b"\0"):
        with pytest.raises(BadInput, match=r"Dockerfile:2: this is no text"):
            lines.read(b"FROM a\nRUN " + byte + b"\n", "Dockerfile")


# --- words -------------------------------------------------------------------------------

VALUES = {"a": "one", "e": "", "f": "x.tar.gz", "w": "1 2", "p": "/usr/lib/x"}
# What a shell makes of it too; the ones behind are Docker's own.
LIKE_SH = (
    "$a", "${a}b", "x$a.y", "${n}", "${n:-d}", "${e:-d}", "${e-d}", "${n-d}", "${a:+y}", "${e:+y}", "${e+y}", "${n+y}",
    "${n:-$a}", "${n:-${a}x}", "'$a'", '"$a b"', "\\$a", '"\\$a"', "${f%.*}", "${f%%.*}", "${p#*/}", "${p##*/}",
    "a''b", '""', "${n:-'x y'}", "$a$a", "x\\ y", "${f%.?z}",
)  # fmt: skip


@pytest.mark.parametrize("text", LIKE_SH)
def test_variables_are_replaced_as_a_shell_does(text: str) -> None:
    """dash is the oracle."""
    program = shutil.which("dash") or "/bin/sh"
    said = subprocess.run(
        [program, "-c", f'printf "%s" {text}'], env=VALUES, capture_output=True, text=True, check=True
    ).stdout
    assert expand(text, VALUES) == said


def test_variables_are_replaced_as_docker_does() -> None:
    """What differs from a shell: no splitting in one word, ${x/y/z}, and a lone $."""
    assert expand("$w", VALUES) == "1 2" and expand("a$", VALUES) == "a$" and expand("$ x", VALUES) == "$ x"
    assert expand("${f/x/y}${p//\\//_}", VALUES) == "y.tar.gz_usr_lib_x"
    assert expand_words('$w \'a b\' "$w" ""', VALUES) == ["1", "2", "a b", "1 2", ""]
    assert raw_words('a="b c" d\\ e \'f\' "open g') == ['a="b c"', "d\\ e", "'f'", '"open g']


@pytest.mark.parametrize("text", ["${", "${}", "${a", "${a:", "${a:=b}", "${a!}", "'open", '"open', "${n:?}"])
def test_words_that_cannot_be_read_are_refused(text: str) -> None:
    """With what is wrong, never by another exception."""
    with pytest.raises(BadInput):
        expand(text, VALUES)


# --- instructions ------------------------------------------------------------------------


def test_both_forms_of_a_command() -> None:
    """JSON is taken as it is; what only looks like it is a shell's line."""
    assert (only('RUN ["a", "b c"]').exec, only('RUN ["a", "b c"]').args) == (True, ("a", "b c"))
    assert (only("RUN ['a']").exec, only("RUN ['a']").args) == (False, ("['a']",))
    assert only("RUN [ -d /x ] && y").args == ("[ -d /x ] && y",)
    assert only("run\ta").name == "RUN"


def test_pairs() -> None:
    """New form, old form, and names of ARG without a value."""
    assert only('ENV A=1 B="x y" C=a\\ b').pairs == (("A", "1"), ("B", '"x y"'), ("C", "a\\ b"))
    assert only("ENV A b  c=d").pairs == (("A", "b  c=d"),)
    assert only("ARG A B=2 C=").pairs == (("A", None), ("B", "2"), ("C", ""))


def test_options() -> None:
    """--name=value in front; -- ends them."""
    copy = only("COPY --from=a --chown=b:c --exclude=x --exclude=y d e")
    assert (copy.option("from"), copy.option("chown"), copy.options["exclude"]) == ("a", "b:c", ("x", "y"))
    assert only("RUN -- --x").args == ("--x",)


REFUSED = {
    "RUNN x": "there is no instruction RUNN",
    "RUN --mount=type=cache,target=/x y": "RUN --mount is not done here",
    "COPY --link a b": "COPY --link is not done here",
    "COPY --form=x a b": "COPY has no option --form",
    "COPY --from a b": "--from needs a value",
    "COPY --from=a --from=b c d": "--from is given twice",
    "COPY a": "COPY needs a source and a destination",
    "RUN": "RUN needs an argument",
    "ENV A": "ENV A has no value",
    "ENV A=1 B": "'B' is no name=value",
    "LABEL =x": "a name is missing",
    "SHELL /bin/sh": "SHELL takes a JSON list",
    "HEALTHCHECK x": "HEALTHCHECK takes CMD",
    "ONBUILD FROM x": "ONBUILD FROM is not allowed",
    "ONBUILD NOPE x": "there is no instruction NOPE",
    "FROM a b": "FROM takes an image",
    "FROM a AS -": "cannot be a stage's name",
}


@pytest.mark.parametrize("text", REFUSED)
def test_a_false_line_is_named(text: str) -> None:
    """File and line, the line itself, and what is wrong with it."""
    with pytest.raises((BadInput, Refused)) as caught:
        dockerfile.read((FROM + "\n" + text).encode())
    first, second = caught.value.what.split("\n")[:2]
    assert first.startswith("Dockerfile:3: ") and REFUSED[text] in first
    assert second == f"     3 | {text}"
    assert caught.value.why or caught.value.next


@pytest.mark.parametrize(("text", "said"), [
    ("", "there is no instruction in it"),
    ("ARG A", "there is no FROM"),
    ("RUN x\nFROM a", "RUN stands before the first FROM"),
    ("FROM a AS x\nFROM b AS X", "a second stage is called x"),
])  # fmt: skip
def test_a_file_without_a_beginning(text: str, said: str) -> None:
    """A stage begins with FROM, and has a name of its own."""
    with pytest.raises(BadInput, match=said):
        dockerfile.read(text.encode())


# --- settings ----------------------------------------------------------------------------


def _settings(text: str, config: dict[str, Any] | None = None, **given: str) -> Settings:
    found = Settings(config or {}, {"G": "global"}, given)
    for one in dockerfile.read((FROM + text).encode()).stages[0].instructions:
        found.apply(one)
    return found


def test_the_settings_of_an_image() -> None:
    """Each instruction ends where Docker puts it."""
    found = _settings(
        "ENV A=1 B=$A\nENV A=2\nEXPOSE 80 90-91/udp\nVOLUME /a /b\nLABEL x=y\nUSER a\nWORKDIR /w\nWORKDIR d\n"
        "STOPSIGNAL SIGQUIT\nMAINTAINER me\nONBUILD RUN x\n"
        'HEALTHCHECK --interval=1m30s --timeout=500ms --retries=2 CMD ["c"]\n',
        {"Env": ["P=q"], "OnBuild": ["RUN old"]},
    )
    assert found.config == {
        "Env": ["P=q", "A=2", "B="],
        "ExposedPorts": {"80/tcp": {}, "90/udp": {}, "91/udp": {}},
        "Volumes": {"/a": {}, "/b": {}},
        "Labels": {"x": "y"},
        "User": "a",
        "WorkingDir": "/w/d",
        "StopSignal": "SIGQUIT",
        "OnBuild": ["RUN x"],
        "Healthcheck": {"Test": ["CMD", "c"], "Interval": 90_000_000_000, "Timeout": 500_000_000, "Retries": 2},
    }
    assert found.author == "me"


def test_arguments() -> None:
    """A default, --build-arg, what stands before FROM, and none of them; the history keeps what RUN saw."""
    found = _settings("ARG A=1 G\nARG B=2\nARG N\nENV E=$A$B$G$N", B="given", HTTP_PROXY="p")
    assert found.config["Env"] == ["E=1givenglobal"]
    assert found.ran(["sh", "-c", "x"]) == "RUN |4 A=1 G=global B=given N= sh -c x"
    assert found.environment()["HTTP_PROXY"] == "p" and "HTTP_PROXY" not in found.variables


def test_an_entry_point_takes_the_command_of_the_base_away() -> None:
    """But not the one that the same stage has set, in whichever order."""
    assert "Cmd" not in _settings('ENTRYPOINT ["e"]', {"Cmd": ["old"]}).config
    assert _settings('CMD ["c"]\nENTRYPOINT e', {"Cmd": ["old"]}).config["Cmd"] == ["c"]


@pytest.mark.parametrize("text", ["EXPOSE 0", "EXPOSE 70000", "EXPOSE x", "STOPSIGNAL SIGNOPE", "VOLUME [\"\"]",
                                  "HEALTHCHECK --interval=5 CMD x", "HEALTHCHECK --retries=x CMD x",
                                  "HEALTHCHECK --timeout=1us CMD x"])  # fmt: skip
def test_values_that_cannot_be_meant_are_refused(text: str) -> None:
    """A port, a signal, a duration, a number."""
    with pytest.raises(BadInput):
        _settings(text)


# --- stages ------------------------------------------------------------------------------


def test_only_what_the_target_needs_is_planned() -> None:
    """By FROM and by COPY --from, by name and by number, a later stage too; in an order in which it can be made."""
    file = dockerfile.read(
        b"FROM a AS one\nFROM b AS two\nCOPY --from=ONE x y\nFROM c\nFROM two AS four\nCOPY --from=six x y\n"
        b"COPY --from=image:1 x y\nFROM d AS five\nFROM e AS six\nFROM four\nCOPY --from=2 x y\n"
    )
    whole = plan.make(file, None, {})
    assert [each.stage.number for each in whole.stages] == [0, 1, 5, 3, 2, 6]
    assert [stage.label for stage in whole.left_out] == ["five"]
    assert [each.stage.number for each in plan.make(file, "two", {}).stages] == [0, 1]
    with pytest.raises(NotFound, match="no stage 'seven'") as caught:
        plan.make(file, "seven", {})
    assert "one, two, 2, four" in caught.value.why


def test_a_circle_of_stages_is_named() -> None:
    """The line of one COPY of it, and the way round."""
    text = b"FROM a AS one\nCOPY --from=two x y\nFROM a AS two\nRUN z\nCOPY --from=one x y\n"
    with pytest.raises(BadInput, match=r"Dockerfile:5: stages need each other in a circle") as caught:
        plan.make(dockerfile.read(text), None, {})
    assert caught.value.why == "two needs one needs two"
    with pytest.raises(BadInput, match="copies from its own stage"):
        plan.make(dockerfile.read(b"FROM a AS one\nCOPY --from=one x y"), None, {})
    with pytest.raises(NotFound, match="there is no stage 7"):
        plan.make(dockerfile.read(b"FROM a\nCOPY --from=7 x y"), None, {})


# --- patterns ----------------------------------------------------------------------------


def test_what_dockerignore_leaves_out() -> None:
    """The examples of Docker's documentation, and exceptions in their order."""
    rules = Patterns.of_file("# comment\n*/temp*\n*/*/temp*\ntemp?\n**/*.go\n/abs\n")
    for path in ("a/temporary.txt", "a/b/temp", "tempa", "x/y/z.go", "z.go", "abs/inside", "a/tempdir/below"):
        assert rules.leave_out(path), path
    for path in ("temp", "a/b/c/temp", "tempab", "x/abs", "goo"):
        assert not rules.leave_out(path), path
    rules = Patterns.of_file("*.md\n!README*.md\nREADME-secret.md\n")
    assert [rules.leave_out(each) for each in ("a.md", "README-x.md", "README-secret.md")] == [True, False, True]
    assert Patterns.of_file(".\n/\n\n").rules == ()


@pytest.mark.parametrize(("pattern", "path", "meets"), [
    ("[a-c]x", "bx", True), ("[^a-c]x", "bx", False), ("a\\*", "a*", True), ("a\\*", "ab", False),
    ("*", "a/b", False), ("**", "a/b", True), ("a/**/b", "a/b", True), ("a/**/b", "a/x/y/b", True), ("?", "/", False),
])  # fmt: skip
def test_patterns(pattern: str, path: str, meets: bool) -> None:
    """As Go's filepath.Match, and ** across folders."""
    assert bool(compiled(pattern).fullmatch(path)) == meets


# --- anything ----------------------------------------------------------------------------

WORDS = "FROM |RUN |COPY |ENV |ARG |ONBUILD |HEALTHCHECK |# escape=`\n|<<EOF|EOF\n|\\\n|`\n|\n| |\t|--from=|:-|AS |//"
PIECES = st.sampled_from([*WORDS.split("|"), *"\"'${}=[]ab\r\0é%#"])


@settings(max_examples=600, deadline=None)
@given(st.lists(PIECES, max_size=25).map("".join))
def test_no_text_breaks_the_reader(text: str) -> None:
    """Whatever a Dockerfile holds, it is read or refused: there is no other exception."""
    try:
        file = dockerfile.read(text.encode())
        plan.make(file, None, {})
        for stage in file.stages:
            _apply_all(stage)
    except LabError as error:
        assert error.what


def _apply_all(stage: dockerfile.Stage) -> None:
    found = Settings({}, {}, {})
    for one in stage.instructions:
        if one.name not in ("RUN", "COPY", "ADD"):
            found.apply(one)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=80))
def test_no_bytes_break_the_reader(data: bytes) -> None:
    """The same for bytes of any kind."""
    try:
        dockerfile.read(data)
    except LabError as error:
        assert error.what
