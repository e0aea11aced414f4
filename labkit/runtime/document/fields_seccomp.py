"""Floor 3: the fields of linux.seccomp, with their shapes.

Owns: the rest of the table of labkit.runtime.document.fields.  It stands alone since the words come from the
compiler (labkit.kernel.seccomp), which is imported only for a container that has a filter.

Read: the OCI runtime specification, config-linux.md, "Seccomp".
"""

from __future__ import annotations

from labkit.kernel.seccomp import machines, profile
from labkit.runtime.document.fields import TEXT, UINT32, UINT64
from labkit.runtime.document.shapes import Each, Object, Word

ACTION = Word(*profile.ACTIONS)
SECCOMP = Object(
    {
        "defaultAction!": ACTION,
        "defaultErrnoRet": UINT32,
        "architectures": Each(Word(*sorted({*machines.MACHINES, *machines.WITHOUT_TABLE}))),
        "flags": Each(Word(*profile.FLAGS)),
        "listenerPath": TEXT,
        "listenerMetadata": TEXT,
        "syscalls": Each(
            Object(
                {
                    "names!": Each(TEXT, least=1),
                    "action!": ACTION,
                    "errnoRet": UINT32,
                    "args": Each(
                        Object(
                            {
                                "index!": UINT32,
                                "value!": UINT64,
                                "valueTwo": UINT64,
                                "op!": Word(*(f"SCMP_CMP_{name}" for name in profile.OPERATORS)),
                            }
                        )
                    ),
                }
            )
        ),
    }
)
