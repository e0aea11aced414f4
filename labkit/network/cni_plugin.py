"""Floor 2: `labkit-cni`: the kit's networks for whoever drives CNI plugins: containerd, podman, cnitool.

    {"cniVersion": "1.0.0", "name": "lab", "plugins": [{"type": "labkit-cni", "network": "labkit0"}]}

Owns: the protocol: variables and JSON in, one JSON object out, and errors as codes.  What the
commands do is labkit.network.cni_bridge.  `network` is a bridge network that `labkit network create`
made; left out, it is the default bridge.  Put the program, or a link to it, into /opt/cni/bin.

Read: containernetworking/cni, SPEC.md, section 2 (the protocol), 4 (what each command does), 5 (JSON).
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

from labkit.errors import BadInput, LabError, NotFound
from labkit.network.cni_call import BAD_CONFIGURATION, OURS, SPOKEN, Refusal, Request, understand


def answer(environment: Mapping[str, str], text: bytes) -> tuple[int, dict[str, Any] | None]:
    """(exit status, what to print as JSON) of one call; None: nothing to print."""
    version = SPOKEN[-1]
    try:
        request = understand(environment, text)
        version = request.version if request.version in SPOKEN else version
        if request.command == "VERSION":
            return 0, {"cniVersion": request.version, "supportedVersions": SPOKEN}
        from labkit.network import cni_bridge  # with netlink and the ledger: VERSION needs neither

        commands: dict[str, Callable[[Request], dict[str, Any] | None]] = {
            "ADD": cni_bridge.add,
            "DEL": cni_bridge.delete,
            "CHECK": cni_bridge.check,
            "GC": cni_bridge.collect,
            "STATUS": cni_bridge.status,
        }
        return 0, commands[request.command](request)
    except Refusal as error:
        said = {"code": error.code, "msg": error.msg, "details": error.details}
    except LabError as error:
        code = BAD_CONFIGURATION if isinstance(error, BadInput | NotFound) else OURS
        said = {"code": code, "msg": error.what, "details": "; next: ".join(filter(None, (error.why, error.next)))}
    except Exception as error:  # a runtime reads JSON, and nothing else
        said = {"code": OURS, "msg": f"labkit itself failed: {error!r}"}
    return 1, {"cniVersion": version, **{key: value for key, value in said.items() if value}}


def main() -> int:
    """The console script."""
    if "CNI_COMMAND" not in os.environ and sys.stdin.isatty():
        print(__doc__)  # a person, who wants to know what this is
        return 0
    status, said = answer(os.environ, sys.stdin.buffer.read())
    if said is not None:
        print(json.dumps(said, indent=2))
    return status


if __name__ == "__main__":
    raise SystemExit(main())
