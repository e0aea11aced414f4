"""its host name is only the beginning of"""

from labkit.kernel import constants as C
from labkit.kernel.syscalls import call


def rename(name: str) -> None:
    call("unshare", C.CLONE_NEWUTS)
    call("sethostname", name, 1)
