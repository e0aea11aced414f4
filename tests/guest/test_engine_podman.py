"""podman with labkit-runtime in runc's place: what it says, keeps, limits and returns is the same.

Read: podman(1), "--runtime"; engine_ground for how a story becomes rows.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
from engine_ground import RUNC, Engine, engine_in, kept_by, rows
from runtime_ground import Machine

pytest_plugins = ["guest_ground"]
pytestmark = [
    pytest.mark.guest,
    pytest.mark.skipif(
        not shutil.which("podman"), reason="the peer is not here: install podman (the test image has it)"
    ),
]

PRELUDE = r"""
p() {
    podman --root $D/root --runroot $D/runroot --tmpdir $D/tmp --cgroup-manager $DRIVER --events-backend file \
        --network-config-dir $D/networks --runtime $RT "$@"
}
run() { p run --rm --network none "$@"; }
start() { p run -d --network none --name c "$@" >/dev/null; }
inside() { p exec c "$@"; }
state() { p inspect --format '{{.State.Status}} {{.State.ExitCode}} {{.State.OOMKilled}} {{.State.Paused}}' "${1:-c}"; }
become() { n=0; until state $2 | grep -q "$1"; do n=$((n+1)); test $n -lt 30 || break; sleep 0.3; done; state $2; }
gone() { p rm -f -t 0 "${1:-c}" >/dev/null; }
"""

# Emulated, a container takes seconds.
QUICK = {"run", "limits"}
STORIES = {
    "run": r"""
o hello hello
run -e A=1 -w /tmp --hostname box $IMAGE sh -c 'echo hello; echo $A $(pwd) $(hostname); echo err >&2; exit 3' 2>$D/err
echo exit $?; cat $D/err
o input given
echo given | run -i $IMAGE cat
o version exit 0
x p info --format '{{.Host.OCIRuntime.Name}}'
""",
    "statuses": r"""
o no-option exit 125
run --no-such-option $IMAGE true >/dev/null 2>&1; echo exit $?
o no-program exit 127
run $IMAGE /no/such 2>/dev/null; echo exit $?
o no-permission exit 126
run $IMAGE /etc/passwd 2>/dev/null; echo exit $?
o a-folder exit 126
run $IMAGE /etc 2>/dev/null; echo exit $?
""",
    "terminal": r"""
o terminal /dev/pts/0
pty "run -it $IMAGE sh -c 'tty; stty size; test -t 2 && echo is; exit 5'"
""",
    "limits": r"""
run --memory 64m --memory-swap 80m --memory-reservation 32m --cpus 0.5 --cpu-shares 512 --pids-limit 77 \
    --ulimit nofile=123:456 --ulimit core=0 --sysctl net.ipv4.ip_default_ttl=77 --sysctl kernel.shm_rmid_forced=1 \
    --oom-score-adj 123 --shm-size 1m $IMAGE sh -c "$WORDS"'
cd /sys/fs/cgroup
o memory.max 67108864
cat memory.max
o memory.swap.max 16777216
cat memory.swap.max
o memory.low 33554432
cat memory.low
o cpu.max 50000 100000
cat cpu.max
o cpu.weight 20
cat cpu.weight
o pids.max 77
cat pids.max
o controllers memory
cat cgroup.controllers
o cgroup 0::/
cat /proc/self/cgroup
o ulimit 123
ulimit -n; ulimit -Hn; ulimit -c
o all-limits Max open files
cat /proc/self/limits
o sysctl 77
cat /proc/sys/net/ipv4/ip_default_ttl /proc/sys/kernel/shm_rmid_forced
o oom-score-adj 123
cat /proc/self/oom_score_adj
o shm 1024
df -k /dev/shm | tail -n 1
'
""",
    "powers": r"""
mkdir -p -m 777 $D/shared; echo host > $D/shared/file
run --cap-drop all --cap-add net_raw --cap-add chown --read-only --tmpfs /t:rw,size=1m,mode=700 -v $D/shared:/v:ro \
    -v $D/shared:/w --user 12:34 --group-add 56 --umask 027 --device /dev/zero:/dev/nothing:r \
    $IMAGE sh -c "$WORDS"'
o status CapEff
grep -E "^(Uid|Gid|Groups|Umask|Cap...|NoNewPrivs|Seccomp):" /proc/self/status
o read-only Read-only file system
x touch /new
o tmpfs rw,
grep " /t " /proc/self/mounts
ls -ld /t /run /tmp /var/tmp | cut -d" " -f1
o volume Read-only file system
x cat /v/file
x touch /v/new
o writable exit 0
x touch /w/new
o device c
ls -l /dev/nothing | cut -c1
x dd if=/dev/nothing bs=1 count=1 of=/dev/null
o masked
x cat /proc/kcore
ls /sys/firmware /proc/acpi
o mounts proc
cut -d" " -f2-4 /proc/self/mounts | grep -v "^/ " | sort
o devices null
ls -l /dev | tr -s " " | cut -d" " -f1-4,5-6,10- | grep -v total
o environment HOME
env | grep -v HOSTNAME | sort
'
""",
    "unprivileged": r"""
cat > $D/seccomp.json <<END
{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO",
 "errnoRet": 95}, {"names": ["symlink", "symlinkat"], "action": "SCMP_ACT_KILL_PROCESS"}]}
END
run --security-opt seccomp=$D/seccomp.json --security-opt no-new-privileges $IMAGE sh -c "$WORDS"'
o seccomp Operation not supported
x mkdir /made
o killed-by-filter exit 159
ln -s a /b 2>/dev/null; echo exit $?
o status Seccomp:	2
grep -E "^(NoNewPrivs|Seccomp|Seccomp_filters):" /proc/self/status
'
o unmasked acpi
x run --security-opt seccomp=unconfined --security-opt unmask=ALL $IMAGE \
    sh -c 'grep Seccomp: /proc/self/status; ls /sys/firmware'
o privileged 1ffffffffff
x run --privileged $IMAGE \
    sh -c 'grep -E "^(Cap|Seccomp:)" /proc/self/status; ls /dev | wc -l; grep -c " ro," /proc/mounts; true'
""",
    "userns": r"""
run --uidmap 0:200000:1000 --gidmap 0:200000:1000 $IMAGE sh -c "$WORDS"'
o mapping 200000
cat /proc/self/uid_map
o root uid=0
id
x chown 5 /etc/hosts
o mounts
cut -d" " -f2-4 /proc/self/mounts | grep -v "^/ " | sort
'
""",
    "detached": r"""
o start exit 0
x start --init --init-path /usr/bin/tini-static --health-cmd 'test -e /tmp/well' --health-interval disable \
    --stop-timeout 1 $IMAGE sh -c 'trap "echo bye; exit 9" TERM; echo began; sleep 1000 & wait'
o running running
state
o init podman-init
inside ps -o comm | grep -v -e ps -e sleep
o exec uid=33
x inside id
x p exec -u 33:7 -w /tmp -e B=2 c sh -c 'id; pwd; echo $B; exit 7'
o exec-errors exit 127
p exec c /no/such >/dev/null 2>&1; echo exit $?
p exec c /etc/passwd >/dev/null 2>&1; echo exit $?
o exec-input given
echo given | p exec -i c cat
o exec-detached well
p exec -d c touch /tmp/well >/dev/null; sleep 1
inside ls /tmp
o healthy healthy
x p healthcheck run c
p inspect --format '{{.State.Health.Status}}' c
o paused paused
p pause c >/dev/null; state
p exec c true >/dev/null 2>&1; echo exit $?
p unpause c >/dev/null; state
o top sh
p top c comm | grep -v sleep
o stats 3
p stats --no-stream --format '{{.PIDs}}' c
o update 50331648
x p update --memory 48m --pids-limit 55 c >/dev/null
inside cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max
o stop bye
x p stop c
state
p logs c 2>&1
gone
""",
    "endings": r"""
start $IMAGE sleep 1000
o kill 137
x p kill c
x p wait c
state
o restart running
x p start c
state
o kill-signal running
x p kill -s USR1 c
sleep 1; state
gone
o oom true
p run --network none --name m --memory 24m $IMAGE \
    sh -c 'tail /dev/zero; code=$?; sleep 3; exit $code'  # or the cgroup may be gone before anybody has read its events
echo exit $?
become exited m
gone m
""",
    "rootfs": r"""
mkdir -p $D/rootfs
test -e $D/rootfs/bin || { id=$(p create $IMAGE); p export $id | tar -x -C $D/rootfs; p rm $id >/dev/null; }
o rootfs here
echo here > $D/rootfs/file
x p run --rm --network none --rootfs $D/rootfs cat /file
""",
    "pod": r"""
p pod create --name pod --infra-image $IMAGE --infra-command 'sleep 1000' \
    --share ipc,net,uts,pid --memory 100m >/dev/null
o pod-shares pod
p run --rm --pod pod $IMAGE sh -c 'ps -o comm; hostname; ls -l /proc/1/ns | wc -l; ip -o link | cut -d: -f2'
o pod-cgroup 0::/
p run --rm --pod pod $IMAGE cat /proc/self/cgroup
o pod-state Running
p pod inspect --format '{{.State}}' pod
o pod-pause Paused
p pod pause pod >/dev/null; p pod inspect --format '{{.State}}' pod
p pod unpause pod >/dev/null
o pod-gone exit 0
x p pod rm -f -t 0 pod | tail -n 1
""",
    "bridge": r"""
o bridge 10.88.0
p run -d --name web $IMAGE \
    sh -c 'echo token > /tmp/index.html; exec httpd -f -p 80 -h /tmp' >/dev/null
address=$(p inspect --format '{{.NetworkSettings.Networks.podman.IPAddress}}' web)
echo $address | cut -d. -f1-3
x p run --rm $IMAGE \
    sh -c "for i in 1 2 3 4 5; do wget -qO- http://$address && break; sleep 1; done; ip -o link | cut -d: -f2"
gone web
""",
}


@pytest.fixture(scope="module")
def engine(
    request: pytest.FixtureRequest, machine: Machine, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Engine]:
    """podman with the image, and the census when it is gone."""
    with engine_in(machine, tmp_path_factory.mktemp("podman"), request.param, PRELUDE) as made:
        ready = made.told_by("mkdir $D/networks; p load -q -i $D/image.tar && run $IMAGE true && echo ready", RUNC)
        assert ready.endswith("ready\n"), ready
        yield made


@pytest.mark.parametrize(("story", "row", "expected"), rows(STORIES, QUICK))
@pytest.mark.parametrize("engine", kept_by(), indirect=True, scope="module")
def test_podman_does_not_notice(engine: Engine, story: str, row: str, expected: str) -> None:
    """What is seen under runc is seen under labkit-runtime."""
    engine.compare(story, STORIES[story], row, expected)
