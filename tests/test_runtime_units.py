"""The units people write, against Docker's rules; a property for each."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.errors import BadInput, Refused
from labkit.runtime import cgroup_texts, commands, flags, units

POWERS = {"": 0, "b": 0, "k": 1, "kb": 1, "KiB": 1, "m": 2, "MB": 2, "g": 3, "gib": 3, "T": 4, "p": 5}


@given(st.integers(0, 10**6), st.sampled_from(sorted(POWERS)), st.sampled_from(["", " "]))
def test_a_size_is_its_number_times_its_unit(number: int, unit: str, space: str) -> None:
    """Units of 1024, in either case, with or without b, as go-units has them."""
    assert units.size(f"{number}{space}{unit}", "--memory") == number * 1024 ** POWERS[unit]


@given(st.text(max_size=8))
def test_any_other_text_is_bad_input(text: str) -> None:
    """Never another error, and never a negative number."""
    try:
        assert units.size(text, "--memory") >= 0
    except BadInput as error:
        assert "--memory" in error.what and error.next


@pytest.mark.parametrize("text", ["", "m", "256x", "-1m", "1e3", "0x10", "256bb", "1m1", "٣", "1..5g", "inf", "nan"])
def test_these_are_no_sizes(text: str) -> None:
    """Each of them is refused by name."""
    with pytest.raises(BadInput):
        units.size(text, "--memory")


@pytest.mark.parametrize(
    ("memory", "swap", "files"),
    [
        ("256m", None, {"memory.max": "268435456", "memory.swap.max": "268435456"}),
        ("256m", "0", {"memory.max": "268435456", "memory.swap.max": "268435456"}),
        ("256m", "256m", {"memory.max": "268435456", "memory.swap.max": "0"}),
        ("256m", "1g", {"memory.max": "268435456", "memory.swap.max": str(768 << 20)}),
        ("256m", "-1", {"memory.max": "268435456", "memory.swap.max": "max"}),
        (None, "-1", {}),
        (None, None, {}),
    ],
)
def test_memory_swap_follows_docker(memory: str | None, swap: str | None, files: dict[str, str]) -> None:
    """Docker's table: together with memory, twice the memory when unset or 0, unlimited at -1."""
    assert cgroup_texts.files({"memory": units.memory(memory, swap)}) == files


@given(st.integers(1, 819200))
def test_cpus_become_microseconds_a_period(hundredths: int) -> None:
    """--cpus N lets so much CPU time pass in each 100 ms, to the microsecond."""
    quota, period = cgroup_texts.files({"cpu": units.cpu(f"{hundredths / 100:.2f}")})["cpu.max"].split()
    assert (int(quota), int(period)) == (hundredths * 1000, 100_000)


@given(st.integers(1, 2**31))
def test_a_number_of_processes_is_itself(number: int) -> None:
    """And 0 and -1 are no limit."""
    assert cgroup_texts.files({"pids": units.pids(str(number))}) == {"pids.max": str(number)}
    for none in ("0", "-1"):
        assert cgroup_texts.files({"pids": units.pids(none)}) == {"pids.max": "max"}


@given(st.text(max_size=6))
def test_cpus_and_pids_never_fail_otherwise(text: str) -> None:
    """A text is a number in range or BadInput that names its option."""
    for parse, option in ((units.cpu, "--cpus"), (units.pids, "--pids-limit")):
        try:
            parse(text)
        except BadInput as error:
            assert option in error.what


@pytest.mark.parametrize(
    ("given", "files"),
    [
        ({"memory": "256m", "memory_reservation": "128m", "memory_swap": "-1"},
         {"memory.max": "268435456", "memory.swap.max": "max", "memory.low": "134217728"}),
        ({"memory_reservation": "1g"}, {"memory.low": "1073741824"}),
        ({"cpus": "1"}, {"cpu.max": "100000 100000"}),
        ({"cpu_quota": "20000"}, {"cpu.max": "20000 100000"}),
        ({"cpu_quota": "20000", "cpu_period": "50000"}, {"cpu.max": "20000 50000"}),
        ({"cpu_period": "50000"}, {"cpu.max": "max 50000"}),
        ({"cpu_quota": "-1"}, {}),
        ({"cpu_shares": "1024"}, {"cpu.weight": "39"}),
        ({"cpu_shares": "2"}, {"cpu.weight": "1"}),
        ({"cpu_shares": "262144"}, {"cpu.weight": "10000"}),
        ({"cpu_shares": "0"}, {}),
        ({"cpuset_cpus": "0-1", "cpuset_mems": "0"}, {"cpuset.cpus": "0-1", "cpuset.mems": "0"}),
        ({"blkio_weight": "500"}, {"io.weight": "4950"}),
        ({"blkio_weight": "0"}, {}),
    ],
)  # fmt: skip
def test_flags_end_in_their_files(given: dict[str, str], files: dict[str, str]) -> None:
    """Each flag's number, on the whole way through the OCI document."""
    assert cgroup_texts.files(flags.resources(given)) == files


def test_bfq_takes_the_weight_as_it_is() -> None:
    """Where the kernel has the scheduler bfq its file takes Docker's own scale."""
    found = flags.resources({"blkio_weight": "500"})
    assert cgroup_texts.files(found, bfq=True) == {"io.bfq.weight": "500"}


def test_rates_of_devices_are_a_line_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """io.max takes one device and one kind of rate a write."""
    monkeypatch.setattr("labkit.kernel.cgroups.io.device", lambda path: "8:16" if path == "/dev/sdb" else "8:0")
    given = {"device_read_bps": ["/dev/sda:1mb", "/dev/sdb:2m"], "device_write_iops": ["/dev/sda:10"]}
    lines = cgroup_texts.files(flags.resources(given))["io.max"].splitlines()
    assert lines == ["8:0 rbps=1048576", "8:16 rbps=2097152", "8:0 wiops=10"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"cpus": "1", "cpu_quota": "20000"}, "--cpus says"),
        ({"cpu_quota": "999"}, "--cpu-quota 999"),
        ({"cpu_period": "1000001"}, "--cpu-period"),
        ({"cpu_shares": "-1"}, "--cpu-shares"),
        ({"cpuset_cpus": "0-"}, "--cpuset-cpus"),
        ({"blkio_weight": "9"}, "--blkio-weight"),
        ({"blkio_weight": "1001"}, "--blkio-weight"),
        ({"memory": "64m", "memory_reservation": "65m"}, "--memory-reservation"),
        ({"device_read_bps": ["/dev/null:1m"]}, "/dev/null is no block device"),
        ({"device_read_bps": ["sda:1m"]}, "--device-read-bps"),
    ],
)
def test_a_limit_that_cannot_be_is_named(given: dict[str, object], said: str) -> None:
    """BadInput with the option, before anything is made."""
    with pytest.raises(BadInput, match=said):
        flags.resources(given)


@pytest.mark.parametrize("option", flags.REFUSED)
def test_what_version_2_cannot_do_is_refused_with_the_reason(option: str) -> None:
    """No silent drop, as docker does it."""
    with pytest.raises(Refused, match=f"there is no {option}") as caught:
        commands.run([option, "image"])
    assert "cgroup v2" in caught.value.why and caught.value.next


def test_every_flag_of_the_table_is_an_option_of_run(capsys: pytest.CaptureFixture[str]) -> None:
    """The table is what the parser is made from."""
    with pytest.raises(SystemExit):
        commands.run(["--help"])
    said = capsys.readouterr().out
    assert all(flag.option in said and flag.file in said for flag in flags.FLAGS)


def test_purposes_name_the_flag_that_asked() -> None:
    """For the error of a machine without that controller."""
    wanted = flags.resources({"cpu_shares": "10", "pids_limit": "3", "cpuset_cpus": "0"})
    assert flags.purposes(wanted) == {"cpu": "--cpu-shares", "pids": "--pids-limit", "cpuset": "--cpuset-cpus"}
