"""the kernel had not let go of them yet"""


def end(group):
    """End everything in the cgroup `group` (a Path) and in all cgroups below it, and remove them all."""
    (group / "cgroup.kill").write_text("1")
    for folder in [*sorted((path for path in group.rglob("*") if path.is_dir()), reverse=True), group]:
        folder.rmdir()
