"""containerd with labkit-runtime in runc's place, by ctr and its shim: what is said, kept and returned is the same.

Read: `ctr run --help`; engine_ground for how a story becomes rows.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
from engine_ground import CONTAINERD, RUNC, Engine, engine_in, kept_by, rows
from runtime_ground import Machine

pytest_plugins = ["guest_ground"]
pytestmark = [
    pytest.mark.guest,
    pytest.mark.skipif(
        not shutil.which("containerd"), reason="the peer is not here: install containerd (the test image has it)"
    ),
]

# With systemd's driver the cgroup is named slice:prefix:name.
PRELUDE = r"""
ctr() { command ctr --address $D/c "$@"; }
of() {
    case $DRIVER in systemd) echo --runc-systemd-cgroup --cgroup system.slice:lab:$1 ;; esac
    echo --runc-binary $RT --runc-root $D/states --snapshotter overlayfs
}
run() { ctr run --rm $(of r) "$@"; }
start() { ctr run -d $(of c) "$@"; }
inside() { ctr task exec --exec-id e$(cut -c1-8 /proc/sys/kernel/random/uuid) "$@"; }
state() { ctr task ls | awk 'NR > 1 {print $1, $3}'; }
gone() { ctr task rm -f c; ctr container rm c; }
"""

# Emulated, a container takes seconds.
QUICK = {"run"}
STORIES = {
    "run": r"""
o hello hello
run --env A=1 --cwd /tmp --hostname box --user 12:34 $IMAGE r sh -c 'echo hello; echo $A $(pwd) $(hostname); id; exit 3'
echo exit $?
o errors err
run $IMAGE r sh -c 'echo err >&2' 2>&1 >/dev/null
o net-host 0::/
x run --net-host $IMAGE r sh -c 'cat /proc/self/cgroup; ip -o link | cut -d: -f2'
o terminal /dev/pts/0
pty "run -t $IMAGE r sh -c 'tty; test -t 2 && echo is; exit 5'"
""",
    "statuses": r"""
o no-program exit 1
run $IMAGE r /no/such 2>/dev/null; echo exit $?
o no-permission exit 1
run $IMAGE r /etc/passwd 2>/dev/null; echo exit $?
o bad-mount exit 1
run --mount type=bind,src=/no/such,dst=/m,options=rbind $IMAGE r true 2>/dev/null; echo exit $?
o nothing-left exit 0
x ctr task ls -q
x ctr container ls -q
x ls $D/states/default
""",
    "limits": r"""
run --memory-limit 67108864 --cpus 0.5 --cpu-shares 512 \
    --mount type=cgroup,src=cgroup,dst=/sys/fs/cgroup,options=ro:nosuid:noexec:nodev $IMAGE r sh -c "$WORDS"'
cd /sys/fs/cgroup$(cut -d: -f3 /proc/self/cgroup)
o memory.max 67108864
cat memory.max
o cpu.max 50000 100000
cat cpu.max
o cpu.weight 20
cat cpu.weight
o pids.max exit 0
x cat pids.max
o cgroup 0::/
cat /proc/self/cgroup
o all-limits Max open files
cat /proc/self/limits
o status Seccomp:	0
grep -E "^(Uid|Gid|Groups|Umask|Cap...|NoNewPrivs|Seccomp):" /proc/self/status
o mounts proc
cut -d" " -f2-4 /proc/self/mounts | grep -v "^/ "
o devices null
ls -l /dev | tr -s " " | cut -d" " -f1-4,5-6,10- | grep -v total
o environment PATH
env | grep -v PWD | sort
'
""",
    "powers": r"""
mkdir -p $D/shared; echo host > $D/shared/file
run --seccomp --cap-drop CAP_CHOWN --cap-add CAP_SYS_TIME --read-only --allow-new-privs --no-pivot \
    --mount type=bind,src=$D/shared,dst=/v,options=rbind:ro --device /dev/zero $IMAGE r sh -c "$WORDS"'
o status Seccomp:	2
grep -E "^(Cap...|NoNewPrivs|Seccomp):" /proc/self/status
o seccomp Operation not permitted
x unshare -U true
o read-only Read-only file system
x touch /new
o volume Read-only file system
x cat /v/file
x touch /v/new
o device exit 0
x dd if=/dev/zero bs=1 count=1 of=/dev/null
'
o privileged 1ffffffffff
x run --privileged $IMAGE r sh -c 'grep -E "^(Cap|Seccomp:)" /proc/self/status; ls /dev | wc -l; ls /sys/firmware'
o rootfs here
mkdir -p $D/rootfs; ctr image mount $IMAGE $D/rootfs >/dev/null
x run --env PATH=/bin --rootfs $D/rootfs r echo here
ctr image unmount --rm $D/rootfs >/dev/null
""",
    "detached": r"""
o start exit 0
x start --pid-file $D/pid --memory-limit 67108864 $IMAGE c \
    sh -c 'trap "echo bye; exit 9" TERM; sleep 1000 & wait'
o running RUNNING
state
tr '\0' ' ' < /proc/$(cat $D/pid)/cmdline | cut -c1-5
o exec uid=33
inside --user 33:7 --cwd /tmp c sh -c 'id; pwd; cat /proc/self/cgroup; exit 7'
echo exit $?
o exec-terminal /dev/pts/
pty "inside -t c sh -c 'tty; exit 4'"
o exec-error exit 1
inside c /no/such >/dev/null 2>&1; echo exit $?
o paused PAUSED
x ctr task pause c; state
inside c true >/dev/null 2>&1; echo exit $?
x ctr task resume c; state
o metrics memory.
ctr task metrics c | awk '{print $1}'
ctr task metrics c | grep -E 'limit|pids'
o ps 3
ctr task ps c | wc -l
o kill exit 0
x ctr task kill -s TERM c
n=0; until state | grep -q STOPPED; do n=$((n+1)); test $n -lt 20 || break; sleep 0.3; done; state
o delete exit 0
ctr task rm c 2>&1; echo exit $?
x ctr container rm c; state
""",
    "killed": r"""
o kill STOPPED
x start $IMAGE c sleep 1000
x ctr task kill -s KILL c
n=0; until state | grep -q STOPPED; do n=$((n+1)); test $n -lt 20 || break; sleep 0.3; done; state
x ctr task rm c
o restart RUNNING
x ctr task start -d c
state
o delete-running exit 1
x ctr task rm c
o force exit 0
x ctr task rm -f c
x ctr container rm c
""",
}


@pytest.fixture(scope="module")
def engine(
    request: pytest.FixtureRequest, machine: Machine, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Engine]:
    """containerd with the image, and the census when it is gone."""
    folder = tmp_path_factory.mktemp("containerd")
    with engine_in(machine, folder, request.param, PRELUDE) as made, made.daemon(CONTAINERD, f"test -S {folder}/c"):
        ready = made.told_by(
            "ctr image import --snapshotter overlayfs $D/image.tar >/dev/null; "
            "ctr image tag $(ctr image ls -q | head -n 1) $IMAGE >/dev/null; run $IMAGE r true && echo ready",
            RUNC,
        )
        assert ready.endswith("ready\n"), ready
        yield made


@pytest.mark.parametrize(("story", "row", "expected"), rows(STORIES, QUICK))
@pytest.mark.parametrize("engine", kept_by(), indirect=True, scope="module")
def test_containerd_does_not_notice(engine: Engine, story: str, row: str, expected: str) -> None:
    """What is seen under runc is seen under labkit-runtime."""
    engine.compare(story, STORIES[story], row, expected)
