"""dockerd with labkit-runtime beside runc (--add-runtime): what docker says, keeps and returns is the same.

Read: dockerd(8), "--add-runtime"; engine_ground for how a story becomes rows.
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
        not shutil.which("dockerd"), reason="the peer is not here: install docker.io (the test image has it)"
    ),
]

DOCKERD = (
    "dockerd --data-root $D/root --exec-root $D/exec --pidfile $D/pid --host unix://$D/s --containerd $D/c "
    "--exec-opt native.cgroupdriver=$DRIVER --add-runtime labkit=$OURS"
)
PRELUDE = r"""
export DOCKER_HOST=unix://$D/s DOCKER_CONFIG=$D/config
case $RT in *labkit-runtime) by=labkit ;; *) by=runc ;; esac
run() { docker run --runtime $by --rm --network none "$@"; }
start() { docker run --runtime $by -d --network none --name box "$@" >/dev/null; }
state() {
    docker inspect --format '{{with .State}}{{.Status}} {{.ExitCode}} {{.OOMKilled}} {{.Paused}}{{end}}' ${1:-box}
}
become() { n=0; until state | grep -q "$1"; do n=$((n+1)); test $n -lt 30 || break; sleep 0.3; done; state; }
gone() { docker rm -f ${1:-box} >/dev/null; }
"""

# Emulated, a container takes seconds.
QUICK = {"run", "limits"}
STORIES = {
    "run": r"""
o hello hello
run -e A=1 -w /tmp --hostname box $IMAGE sh -c 'echo hello; echo $A $(pwd) $(hostname); exit 3'
echo exit $?
o errors err
run $IMAGE sh -c 'echo err >&2' 2>&1 >/dev/null
o input given
echo given | run -i $IMAGE cat
o terminal /dev/pts/0
pty "run -it $IMAGE sh -c 'tty; stty size; test -t 2 && echo is; exit 5'"
""",
    "statuses": r"""
o no-program exit 127
run $IMAGE /no/such 2>$D/said; status=$?
echo exit $status; test $status = 127 || cat $D/said
o no-permission exit 126
run $IMAGE /etc/passwd 2>/dev/null; echo exit $?
o a-folder exit 126
run $IMAGE /etc 2>/dev/null; echo exit $?
o bad-folder exit 125
run -w /etc/passwd $IMAGE true 2>/dev/null; echo exit $?
""",
    "limits": r"""
run --memory 64m --memory-reservation 32m --cpus 0.5 --cpu-shares 512 --pids-limit 77 \
    --ulimit nofile=123:456 --sysctl net.ipv4.ip_default_ttl=77 --oom-score-adj 123 --shm-size 1m \
    --cap-drop all --cap-add net_raw --read-only --tmpfs /t:rw,size=1m,mode=700 --user 12:34 --group-add 56 \
    --device /dev/zero:/dev/nothing:r --security-opt no-new-privileges --domainname lab $IMAGE sh -c "$WORDS"'
cd /sys/fs/cgroup
o memory 67108864
cat memory.max memory.low
o cpu 50000 100000
cat cpu.max cpu.weight
o pids.max 77
cat pids.max
o all-limits Max open files
cat /proc/self/limits
o kernel-settings 77
cat /proc/sys/net/ipv4/ip_default_ttl /proc/self/oom_score_adj /proc/sys/kernel/domainname
o status NoNewPrivs:	1
grep -E "^(Uid|Gid|Groups|Umask|Cap...|NoNewPrivs|Seccomp):" /proc/self/status
o device exit 0
x dd if=/dev/nothing bs=1 count=1 of=/dev/null
o mounts proc
cut -d" " -f2-4 /proc/self/mounts | grep -v "^/ "
o devices null
ls -l /dev | tr -s " " | cut -d" " -f1-4,5-6,10- | grep -v total
o environment HOME
env | grep -v HOSTNAME | sort
'
o privileged 1ffffffffff
x run --privileged $IMAGE \
    sh -c 'grep -E "^(Cap|Seccomp:)" /proc/self/status; ls /dev | wc -l; ls /sys/firmware; cat /proc/self/cgroup'
""",
    "detached": r"""
o start exit 0
x start --init --stop-timeout 3 --health-cmd 'test -e /tmp/well' --health-interval 4s --health-retries 100 $IMAGE \
    sh -c 'trap "echo bye; exit 9" TERM; echo began; sleep 1000 & wait'
o running running
state
o exec uid=33
x docker exec -u 33:7 -w /tmp -e B=2 box sh -c 'id; pwd; echo $B; exit 7'
o exec-errors exit 126
docker exec box /no/such >/dev/null 2>&1; echo exit $?
docker exec box /etc/passwd >/dev/null 2>&1; echo exit $?
o exec-input given
echo given | docker exec -i box cat
o exec-terminal /dev/pts/
pty "docker exec -it box sh -c 'tty; stty size; exit 4'"
o healthy healthy
docker exec -d box touch /tmp/well
health() { docker inspect --format '{{.State.Health.Status}}' box; }
n=0; until health | grep -qx healthy; do n=$((n+1)); test $n -lt 40 || break; sleep 0.5; done
health
o paused paused
docker pause box >/dev/null; state
docker exec box true >/dev/null 2>&1; echo exit $?
docker unpause box >/dev/null; state
o top docker-init
docker top box -eo pid,comm | awk '{print $2}' | sort -u | grep -v sleep
o stats 64MiB
x docker update --memory 64m --memory-swap 96m --pids-limit 55 --cpus 0.25 box
docker stats --no-stream --format '{{.MemUsage}}' box | cut -d/ -f2
o updated 55
x docker exec box sh -c 'cd /sys/fs/cgroup; cat memory.max memory.swap.max pids.max cpu.max'
o stop bye
x docker stop box
state
docker logs box 2>&1
gone
""",
    "endings": r"""
o kill 137
start $IMAGE sleep 1000
x docker kill box
become exited
o restart running
x docker start box
state
o restart-policy running
x docker update --restart on-failure:2 box
pid=$(docker inspect --format '{{.State.Pid}}' box)
test $pid -gt 1 && kill -9 $pid  # 0, of one that does not run, would be this script and all in its group
restarts() { docker inspect --format '{{.RestartCount}} {{.State.Status}}' box; }
n=0; until restarts | grep -q "1 running"; do n=$((n+1)); test $n -lt 40 || break; sleep 0.3; done
restarts
gone
o oom true
docker run --runtime $by --network none --name box --memory 24m $IMAGE \
    sh -c 'tail /dev/zero; code=$?; sleep 3; exit $code'  # or the cgroup may be gone before anybody has read its events
echo exit $?
state
gone
o attach exit 6
docker run --runtime $by -dit --network none --name box $IMAGE sh -c 'read line; echo got $line; exit 6' >/dev/null
{ sleep 4; echo word; sleep 2; } | SHELL=/bin/sh script -qec ". $D/words; docker attach box" /dev/null | grep got
docker wait box >/dev/null; state | cut -d' ' -f2 | sed 's/^/exit /'
gone
""",
    "bridge": r"""
o bridge 172.17.0.
docker run --runtime $by -d --name web $IMAGE \
    sh -c 'echo token > /tmp/index.html; exec httpd -f -p 80 -h /tmp' >/dev/null
address=$(docker inspect --format '{{.NetworkSettings.IPAddress}}' web)
echo $address | cut -d. -f1-3 | sed 's/$/./'
x docker run --runtime $by --rm $IMAGE \
    sh -c "for i in 1 2 3 4 5; do wget -qO- http://$address && break; sleep 1; done; ip -o link | cut -d: -f2"
gone web
""",
}


@pytest.fixture(scope="module")
def engine(
    request: pytest.FixtureRequest, machine: Machine, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Engine]:
    """dockerd (and the containerd that it wants) with the image, and the census when it is gone."""
    folder = tmp_path_factory.mktemp("dockerd")
    with engine_in(machine, folder, request.param, PRELUDE) as made:
        answers = f"DOCKER_HOST=unix://{folder}/s docker version"
        with made.daemon(CONTAINERD, f"test -S {folder}/c"), made.daemon(DOCKERD, answers):
            ready = made.told_by("docker load -q --input $D/image.tar && run $IMAGE true && echo ready", RUNC)
            assert ready.endswith("ready\n"), ready
            yield made


@pytest.mark.parametrize(("story", "row", "expected"), rows(STORIES, QUICK))
@pytest.mark.parametrize("engine", kept_by(), indirect=True, scope="module")
def test_dockerd_does_not_notice(engine: Engine, story: str, row: str, expected: str) -> None:
    """What is seen under runc is seen under labkit-runtime."""
    engine.compare(story, STORIES[story], row, expected)
