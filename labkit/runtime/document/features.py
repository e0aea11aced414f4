"""Floor 3: what `labkit-runtime features` prints: which parts of the specification this runtime keeps.

Owns: gathering it from the tables that the runtime itself works with, so that it cannot promise
what the code does not do.

Read: the OCI runtime specification, features.md and features-linux.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from labkit.kernel import capabilities
from labkit.kernel.seccomp import machines, profile
from labkit.runtime.document.fields import HOOK_KINDS, NAMESPACE_TYPES
from labkit.runtime.document.template import VERSION


def features(mount_options: Sequence[str], version: str) -> dict[str, Any]:
    """The document; `mount_options` are the words that the runtime's mounts know, `version` is the kit's."""
    known = sorted(profile.FLAGS)
    return {
        "ociVersionMin": "1.0.0",
        "ociVersionMax": VERSION,
        "hooks": list(HOOK_KINDS),
        "mountOptions": sorted(mount_options),
        "linux": {
            "namespaces": sorted(NAMESPACE_TYPES),
            "capabilities": list(capabilities.NUMBERS),
            "cgroup": {"v1": False, "v2": True, "systemd": True, "systemdUser": True, "rdma": True},
            "seccomp": {
                "enabled": True,
                "actions": sorted(profile.ACTIONS),
                "operators": sorted(f"SCMP_CMP_{name}" for name in profile.OPERATORS),
                "archs": sorted(machines.MACHINES),
                "knownFlags": known,
                "supportedFlags": known,
            },
            "apparmor": {"enabled": Path("/sys/kernel/security/apparmor").is_dir()},
            "selinux": {"enabled": Path("/sys/fs/selinux/enforce").exists()},
            "intelRdt": {"enabled": False},
            "mountExtensions": {"idmap": {"enabled": True}},
        },
        "annotations": {"io.github.labkit.version": version},
    }
