#!/bin/bash
# Make a Debian 13 machine the lab's machine.  One script for every way of starting:
#
#   in a chroot, natively, while the image is built (make lab, make box)
#   in a running machine, as Vagrant's shell provisioner (vagrant up)
#
# Runs as root; a second run changes nothing.  LABKIT_SOURCE is the project's tree
# (/lab in a running machine).  LABKIT_CA, when set, is a folder of further certificates
# to trust, for networks whose proxy inspects what passes.
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8 PIP_DISABLE_PIP_VERSION_CHECK=1
source_tree=${LABKIT_SOURCE:-/lab}
here=$source_tree/vagrant
venv=/opt/labkit/venv
step() { printf '%s  %s\n' "$(date +%T)" "$*"; }

# The list of certificates is made anew only when it is older: under emulation that takes a minute.
trusted=/usr/local/share/ca-certificates
trust() {
    if [ $trusted/lab.bundle -nt /etc/ssl/certs/ca-certificates.crt ] && command -v update-ca-certificates >/dev/null; then
        update-ca-certificates >/dev/null 2>&1
    fi
}
if [ -n "${LABKIT_CA:-}" ] && ls "$LABKIT_CA"/*.crt >/dev/null 2>&1; then
    step "certificates"
    mkdir -p $trusted
    if ! cat "$LABKIT_CA"/*.crt | cmp -s - $trusted/lab.bundle; then
        # One file a certificate is what update-ca-certificates wants; a bundle is split.
        cat "$LABKIT_CA"/*.crt > $trusted/lab.bundle
        awk -v to=$trusted '/BEGIN CERT/ {n++} n {print > (to "/lab-" n ".crt")}' $trusted/lab.bundle
    fi
    trust
fi

step "packages"
wanted=$(grep -v '^#' "$here/packages.txt")
missing=$(for p in $wanted; do dpkg -s "$p" >/dev/null 2>&1 || echo "$p"; done)
if [ -n "$missing" ]; then
    apt-get -q -q update
    # shellcheck disable=SC2086
    apt-get -q -q install -y --no-install-recommends $missing >/dev/null
fi
trust

step "python environment"
# pip brings its own list of certificates; this machine's may know more.
export PIP_CERT=/etc/ssl/certs/ca-certificates.crt
stamp=/opt/labkit/requirements.done
if ! cmp -s "$here/requirements.txt" "$stamp"; then
    [ -x $venv/bin/python ] || python3 -m venv $venv
    $venv/bin/pip install -q --no-compile -r "$here/requirements.txt"
    # Compiled here, natively: under emulation the first start would take a minute longer.
    $venv/bin/python -m compileall -q -j 0 $venv/lib >/dev/null 2>&1 || true
    # So is matplotlib's list of fonts: made at the first picture, it takes 15 s there, and says so in the notebook.
    HOME=/root $venv/bin/python -c 'import matplotlib.font_manager'
    cp "$here/requirements.txt" "$stamp"
fi
echo /lab > "$(echo $venv/lib/python3*/site-packages)/labkit-tree.pth"

step "commands"
mkdir -p /var/cache/labkit/pycache /var/lib/labkit /etc/labkit
# -P: the folder a person stands in is not searched for modules.
cat > /usr/local/bin/labkit <<'W'
#!/bin/sh
export PYTHONPYCACHEPREFIX=/var/cache/labkit/pycache
exec /opt/labkit/venv/bin/python -P -m labkit "$@"
W
# What runtimes call to put a container on one of the kit's networks; linked into their folder of CNI plugins.
cat > /usr/local/bin/labkit-cni <<'W'
#!/bin/sh
export PYTHONPYCACHEPREFIX=/var/cache/labkit/pycache
exec /opt/labkit/venv/bin/python -P -m labkit.network.cni_plugin
W
chmod 755 /usr/local/bin/labkit /usr/local/bin/labkit-cni
# Engines call it by its path, several times a container: it names its interpreter outright.
(cd "$source_tree" && PYTHONPYCACHEPREFIX=/var/cache/labkit/pycache $venv/bin/python -m labkit.runtime.program \
    /usr/local/bin/labkit-runtime /lab)
echo 'export PYTHONPYCACHEPREFIX=/var/cache/labkit/pycache' > /etc/profile.d/labkit.sh

step "crane"
sh "$here/install-crane.sh"

step "user learner"
# Not 1000: in Vagrant's boxes that is vagrant.
id learner >/dev/null 2>&1 || useradd --create-home --shell /bin/bash --uid 1500 learner
grep -q '^learner:' /etc/subuid || usermod --add-subuids 200000-265535 --add-subgids 200000-265535 learner

step "images"
# Without the network afterwards: the lab's own images, from the distribution's packages.
images=/usr/share/labkit/images
if [ ! -e $images/.done ]; then
    mkdir -p $images
    (cd "$source_tree" && PYTHONDONTWRITEBYTECODE=1 $venv/bin/python -m labkit.image.kit build $images)
    # All blobs in one folder of links: crane's registry serves them from there.
    mkdir -p $images/.blobs/sha256
    for blob in $images/*/blobs/sha256/*; do
        [ -e "$images/.blobs/sha256/${blob##*/}" ] || ln "$blob" $images/.blobs/sha256/
    done
    touch $images/.done
fi

step "services"
install -m 755 "$here/lab-jupyter" "$here/lab-registry" "$here/lab-tree" /usr/local/sbin/
install -m 644 "$here"/*.service /etc/systemd/system/
mkdir -p /opt/labkit/jupyter/settings
install -m 644 "$here/jupyter_server_config.py" /opt/labkit/jupyter/
install -m 644 "$here/settings/overrides.json" /opt/labkit/jupyter/settings/
systemctl -q enable lab-tree.service lab-registry.service lab-jupyter.service
# The tests start the peers' daemons by themselves, with folders and sockets of their own.
for daemon in docker.service docker.socket containerd.service podman.socket; do
    systemctl -q disable "$daemon" 2>/dev/null || true
done
for timer in apt-daily apt-daily-upgrade e2scrub_all fstrim dpkg-db-backup man-db; do
    systemctl -q mask $timer.timer 2>/dev/null || true
done
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload
    systemctl start lab-registry.service lab-jupyter.service
fi
apt-get -q -q clean
step "done"
