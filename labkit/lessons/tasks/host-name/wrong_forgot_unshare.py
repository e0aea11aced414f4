"""the child never left the machine's UTS namespace"""

from labkit.kernel.syscalls import call


def rename(name: str) -> None:
    call("sethostname", name, len(name.encode()))
