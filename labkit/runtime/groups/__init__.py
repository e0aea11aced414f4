"""Floor 3: the container's cgroup: linux.resources as files of cgroup v2, and who makes the cgroup.

resources  the numbers of config.json as the texts of files
driver     which of the two keeps a container's cgroup, or none
cgroupfs   made by this runtime itself, below the path of linux.cgroupsPath
shared     the folder above the containers without a path of their own, and the controllers handed down for it
systemd    made by the service manager, over D-Bus
"""
