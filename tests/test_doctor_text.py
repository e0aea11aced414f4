"""The doctor's parsers and verdict, on recorded text of machines that are not at hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from labkit.lab import doctor, doctor_command
from labkit.lab import doctor_probes_text as text

RECORDED = Path(__file__).parent / "recorded" / "doctor"


def sysctls(name: str) -> dict[str, str]:
    """A recorded `sysctl` answer as the probe reads it."""
    lines = (RECORDED / f"sysctl.{name}").read_text().splitlines()
    return {key: value for key, _, value in (line.partition(" = ") for line in lines)}


@pytest.mark.parametrize(
    ("machine", "forbids", "remedy"),
    [
        ("ubuntu-24.04", "kernel.apparmor_restrict_unprivileged_userns = 1", "apparmor_restrict_unprivileged_userns=0"),
        ("debian-10", "kernel.unprivileged_userns_clone = 0", "unprivileged_userns_clone=1"),
    ],
)  # fmt: skip
def test_the_forbidding_sysctl_is_named(machine: str, forbids: str, remedy: str) -> None:
    """Where a distribution forbids user namespaces, its sysctl is named and the command changes that one."""
    found, command = text.userns_obstacle(sysctls(machine))
    assert found.startswith(forbids)
    assert command == f"sysctl -w kernel.{remedy}"


def test_no_sysctl_is_blamed_that_does_not_forbid() -> None:
    """With every sysctl at its allowing value none is named."""
    assert text.userns_obstacle({"kernel.unprivileged_userns_clone": "1", "user.max_user_namespaces": "7819"}) == (
        "",
        "",
    )


def test_a_limit_of_zero_forbids() -> None:
    """user.max_user_namespaces = 0 is an obstacle too."""
    assert text.userns_obstacle({"user.max_user_namespaces": "0"})[0].startswith("user.max_user_namespaces = 0")


@pytest.mark.parametrize(
    ("machine", "places"),
    [
        ("v1", {"cpu": "cpu,cpuacct", "cpuacct": "cpu,cpuacct", "memory": "memory"}),
        ("hybrid", {name: name for name in ("cpu", "cpuacct", "cpuset", "memory", "blkio", "pids")}),
        ("unified", {}),
    ],
)  # fmt: skip
def test_version_one_mounts_are_found(machine: str, places: dict[str, str]) -> None:
    """Each controller is found where version 1 has it mounted; a named hierarchy is no controller."""
    assert text.version_one((RECORDED / f"mountinfo.{machine}").read_text()) == {
        name: f"/sys/fs/cgroup/{folder}" for name, folder in places.items()
    }


def test_swap_is_summed_without_the_head_line() -> None:
    """Two swap areas are added up, in MiB; the head alone is no swap."""
    head = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"
    area = "/dev/vda2                               partition\t1048572\t0\t-2\n"
    assert text.swap(head) == 0
    assert text.swap(head + area + area) == 2047


def test_small_texts_are_read() -> None:
    """meminfo, cgroup, pressure and os-release give their values."""
    assert text.meminfo("MemTotal:        2048000 kB\nHugePages_Total:       0\n") == {"MemTotal": 2000}
    assert text.own_cgroup("4:memory:/a\n0::/user.slice/x\n") == "/user.slice/x"
    assert text.own_cgroup("4:memory:/a\n") == ""
    assert text.pressure_total("some avg10=0.00 avg60=0.00 avg300=0.00 total=59\nfull avg10=0 total=7\n") == 59
    assert text.distribution('NAME=x\nPRETTY_NAME="Debian GNU/Linux 13 (trixie)"\n') == "Debian GNU/Linux 13 (trixie)"


def all_ok() -> dict[str, list[str]]:
    """What the probes would see on a machine that has everything."""
    return {key: ["ok", "seen", ""] for key in doctor.CHECKS}


def test_a_machine_with_everything_is_fit() -> None:
    """Nothing missing: no cost, no remedy, nothing lacking."""
    found = doctor.findings(all_ok(), in_lab=False)
    assert not doctor.lacking(found)
    assert {(one.cost, one.remedy) for one in found} == {("", "")}


@pytest.mark.parametrize("key", doctor.ESSENTIAL)
@pytest.mark.parametrize("state", ["limited", "missing"])
def test_each_essential_finding_decides(key: str, state: str) -> None:
    """One essential thing not ok makes the machine unfit, and the last line names it."""
    found = doctor.findings(all_ok() | {key: [state, "seen", ""]}, in_lab=False)
    assert [one.key for one in doctor.lacking(found)] == [key]
    assert doctor.CHECKS[key].title in doctor_command.verdict(found).rpartition("it lacks: ")[2]


@pytest.mark.parametrize("key", sorted(set(doctor.CHECKS) - set(doctor.ESSENTIAL)))
def test_the_rest_does_not_decide(key: str) -> None:
    """Any other thing missing costs something, says what to do, and leaves the machine fit."""
    found = doctor.findings(all_ok() | {key: ["missing", "seen", ""]}, in_lab=False)
    assert not doctor.lacking(found)
    (one,) = [one for one in found if one.state != "ok"]
    assert one.cost.startswith("notebook")
    assert one.remedy


def test_the_remedy_fits_the_place() -> None:
    """On a host the way out is the lab; in the lab's machine it is to make it anew from the host."""
    seen = all_ok() | {"landlock": ["missing", "none", ""]}
    here, there = ({one.key: one.remedy for one in doctor.findings(seen, in_lab=where)} for where in (False, True))
    assert here["landlock"].startswith("make lab,")
    assert there["landlock"].startswith("on the host: make lab FRESH=1")


def test_a_probe_that_said_nothing_is_missing() -> None:
    """A key without an answer is missing, not forgotten and not ok."""
    seen = all_ok()
    del seen["veth"]
    (one,) = [one for one in doctor.findings(seen, in_lab=False) if one.state != "ok"]
    assert (one.key, one.state) == ("veth", "missing")
