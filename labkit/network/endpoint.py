"""Floor 2: what a container needs to know about its place in a network.

Owns: the form in which a place goes from whoever gives it (labkit.network.bridge) to whoever
sets it up, perhaps another process (labkit.network.inside), and to the ports that lead there.

Read: veth(4) on the two ends; ip-address(8) and ip-route(8) for what is set from these fields.
"""

from __future__ import annotations

from typing import Any, NamedTuple


class Endpoint(NamedTuple):
    """One container on one network."""

    network: str
    host_interface: str  # the machine's end of the veth pair; "" where there is none
    address: str
    prefix: int
    gateway: str  # the bridge's own address; "" where no way leads out
    mac: str
    name: str = "eth0"  # the container's end
    address6: str = ""
    prefix6: int = 0
    gateway6: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain data, for the line to the container's process."""
        return self._asdict()

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Endpoint:
        """The inverse of to_json."""
        return cls(**data)
