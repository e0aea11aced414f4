"""Floor 3: how `labkit-runtime` begins: all code of a verb from one file, and no time for what nobody needs.

Owns: the bundle of a verb (the modules that it needed the last time, as code, in the order in which they were
complete), whether one may be believed, and the process's end.  Python looks for each module in several folders and
opens, checks and reads a file for it: 0.2 ms each, and a start needs fifty.  A bundle counts only while each source
has the time and the size that it had, and as a file of this user's or root's that nobody else may write.

What is not in it is imported as ever, and where no bundle can be written, everything is.

Read: the library's documentation of marshal and importlib ("Import machinery"); PEP 3147 on __pycache__.
"""

# No __future__ here, which is a file to be found and read as well: annotations stand in quotes.
import gc
import marshal
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType, ModuleType
    from typing import NoReturn

    # name, whether it is a package, its file, that file's time in ns and size, its code
    Entry = tuple[str, bool, str, int, int, CodeType]

Module = type(sys)
HERE = os.path.dirname(os.path.abspath(__file__))
TAG = f"{sys.implementation.cache_tag}-{sys.hexversion:x}"
LARGEST = 1 << 24  # bytes
# What life/words.py has as VERBS, and of GLOBAL what a word follows.  Read from there it would be a module to import
# before anybody knows which bundle holds it.
VERBS = frozenset(("create", "run", "start", "state", "list", "kill", "delete", "pause", "resume", "update", "events",
                   "ps", "spec", "features", "exec"))  # fmt: skip
VALUED = frozenset(("--root", "--log", "--log-format", "--cgroup-manager", "--rootless"))


def main() -> "NoReturn":
    """Run the command line of this process, and end it."""
    gc.disable()  # a container's maker ends before there is anything to collect
    file = f"{_folder()}/{TAG}.{verb(sys.argv[1:])}.bundle"
    known = load(file)
    recorder = None if known else Recorder()
    from labkit.runtime.life import command

    status = command.main()
    if recorder and not status and not sys.dont_write_bytecode:
        keep(file, recorder.entries)
    try:
        sys.stdout.flush()
    except OSError:
        status = status or 1  # nobody reads any more
    # No tidying up of a hundred modules: the kernel does that.
    os._exit(status)


def verb(argv: "list[str]") -> str:
    """The verb among these words; none where there is none, as in --help."""
    before = ""
    for word in argv:
        if word in VERBS and before not in VALUED:
            return word
        before = "" if before in VALUED else word  # a value is no flag, whatever it looks like
    return "none"


def load(file: str) -> bool:
    """Fill sys.modules from a bundle; False where there is none that may be believed."""
    try:
        fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        with open(fd, "rb", buffering=0) as opened:
            about = os.fstat(fd)
            if about.st_uid not in (0, os.geteuid()) or about.st_mode & 0o022 or about.st_size > LARGEST:
                return False
            entries: list[Entry] = marshal.loads(opened.read())
        for _, _, source, time, size, _ in entries:
            found = os.stat(source)
            if (found.st_mtime_ns, found.st_size) != (time, size):
                return False
    except (OSError, ValueError, EOFError, TypeError):
        return False
    fresh = [entry for entry in entries if entry[0] not in sys.modules]
    for name, package, source, *_ in fresh:
        sys.modules[name] = module = Module(name)
        module.__file__ = source
        module.__package__ = name if package else name.rpartition(".")[0]
        if package:
            module.__path__ = [os.path.dirname(source)]
    # In the order in which they were complete: each finds what it imports, and a package what it is made of.
    for name, *_, code in fresh:
        exec(code, sys.modules[name].__dict__)
        parent, _, last = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], last, sys.modules[name])
    return True


class Recorder:
    """What is imported from now on as Python source, in the order in which it is complete."""

    def __init__(self) -> None:
        import importlib.machinery

        self.library = importlib.machinery
        self.entries: list[Entry] = []
        sys.meta_path.insert(0, self)  # type: ignore[arg-type]

    def find_spec(self, name: str, path: object, target: object = None) -> object:
        """The spec that Python's own finder has, with a loader that tells when it is done (importlib)."""
        if not name.startswith("labkit.") and "." in name:
            return None  # inside a package of the library's, modules may import one another in a circle
        spec = self.library.PathFinder.find_spec(name, path, target)  # type: ignore[arg-type]
        if spec is None or type(spec.loader) is not self.library.SourceFileLoader:
            return spec
        spec.loader = Told(self.entries)  # type: ignore[assignment]
        return spec


class Told:
    """A loader that writes down what it has loaded."""

    def __init__(self, entries: "list[Entry]") -> None:
        self.entries = entries

    def create_module(self, spec: object) -> None:
        """The ordinary kind of module."""

    def exec_module(self, module: "ModuleType") -> None:
        """Run its code; then it is complete."""
        assert module.__file__ is not None
        about = os.stat(module.__file__)
        with open(module.__file__, encoding="utf-8") as file:
            # Without docstrings, which are a tenth of it, and nobody asks a running container for them.
            code = compile(file.read(), module.__file__, "exec", dont_inherit=True, optimize=2)
        exec(code, module.__dict__)
        package = hasattr(module, "__path__")
        self.entries.append((module.__name__, package, module.__file__, about.st_mtime_ns, about.st_size, code))


def keep(file: str, entries: "list[Entry]") -> None:
    """Write a bundle whole or not at all; where that cannot be, the next start is as slow as this one."""
    draft = f"{file}.{os.getpid()}"
    try:
        os.makedirs(os.path.dirname(file), exist_ok=True)
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644), "wb") as opened:
            opened.write(marshal.dumps(entries))
        os.rename(draft, file)
    except OSError:
        try:
            os.unlink(draft)
        except OSError:
            pass


def _folder() -> str:
    return sys.pycache_prefix + HERE if sys.pycache_prefix else f"{HERE}/__pycache__"
