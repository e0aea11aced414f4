"""the name was set before the namespace was left"""

from labkit.kernel import constants as C
from labkit.kernel.syscalls import call


def rename(name: str) -> None:
    call("sethostname", name, len(name.encode()))
    call("unshare", C.CLONE_NEWUTS)
