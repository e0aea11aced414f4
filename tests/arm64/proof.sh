#!/bin/sh
# Runs as root in the emulated aarch64 machine, at its boot; everything goes to the console.
# The last line tells the host that it came to the end, and how.
echo "=== $(uname -srm), up for $(cut -d' ' -f1 /proc/uptime) s"
echo "=== labkit doctor"
labkit doctor
echo "=== doctor ended with $?"
echo "=== labkit run"
labkit run --rm --memory 64m localhost:5000/busybox uname -m
echo "=== run ended with $?"
labkit run --rm localhost:5000/busybox sh -c 'echo "pid $$ on $(hostname)"; exit 7'
echo "=== second run ended with $?"
echo "=== end"
