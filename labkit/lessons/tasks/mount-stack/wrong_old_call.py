"""the old mount call"""

from labkit.kernel.syscalls import call


def stack(target, lower, upper, work):
    """Mount an overlay on the folder `target`."""
    layers = ":".join(folder.replace(":", "\\:") for folder in reversed(lower))
    call("mount", "overlay", target, "overlay", 0, f"lowerdir={layers},upperdir={upper},workdir={work}")
