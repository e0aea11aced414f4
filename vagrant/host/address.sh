#!/bin/sh
# Wait until JupyterLab answers and print its address on the host, with the token.
# Vagrant runs it after every start; $1 is the port on the host.
set -eu
# A folder that vagrant mounts arrives after the service's first try.
systemctl start lab-registry.service lab-jupyter.service
tries=0
until curl -s -o /dev/null http://127.0.0.1:8888/api; do
    tries=$((tries + 1))
    if [ $tries -gt 300 ]; then
        echo "JupyterLab has not answered for 5 minutes; its log: journalctl -u lab-jupyter" >&2
        exit 1
    fi
    sleep 1
done
echo "The lab is up: http://127.0.0.1:$1/lab?token=$(cat /etc/labkit/token)"
