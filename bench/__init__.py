"""`make bench`: labkit raced against the programs that do the same, as ratios.

race        contestants take turns in one run; medians, and ratios round by round
machine     a machine within this machine, in which all of them find the cgroups they want
images      what is unpacked and started: the kit's images and a layer made from a seed
observe     a snapshot of fifty namespaces and a thousand mounts, and a difference of two
live        a live view of one container
networks    a container's network against the CNI plugins and netavark; bandwidth of a bridge
cgroups     a container's cgroup, set up and removed, against crun's (in the lab's machine)
__main__    the races, the table, the aims
"""
