"""the child has a new mnt namespace, but it still stands in the machine's uts namespace"""

from labkit.kernel import constants as C
from labkit.kernel.syscalls import call


def rename(name: str) -> None:
    call("unshare", C.CLONE_NEWNS)
    call("sethostname", name, len(name.encode()))
