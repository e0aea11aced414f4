# exercise: host-name
from labkit.kernel import constants as C
from labkit.kernel.syscalls import call


def rename(name: str) -> None:
    """Give this process, and no other, the host name `name`."""
    call("unshare", C.CLONE_NEWUTS)
    call("sethostname", name, len(name.encode()))
