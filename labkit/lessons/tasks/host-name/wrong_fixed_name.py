"""its host name is box, and"""

from labkit.kernel import constants as C
from labkit.kernel.syscalls import call


def rename(name: str) -> None:
    call("unshare", C.CLONE_NEWUTS)
    call("sethostname", "box", 3)
