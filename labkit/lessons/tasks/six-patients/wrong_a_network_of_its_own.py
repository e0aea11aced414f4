"""five: it starts, but it is in a network namespace that is of its own"""


# exercise: six-patients
def heal(name, config):
    """(step, config): the step of its birth that this one does not survive, and a config.json with which it lives."""
    linux = config["linux"]
    if name == "one":  # "sleep 1000" is the name of no program
        config["process"]["args"] = config["process"]["args"][0].split()
        return "dropped", config
    if name == "two":  # the destination is a file: so must the source be
        config["mounts"][-1]["source"] += "/app.conf"
        return "mounted", config
    if name == "three":  # ls /proc/sys/net/ipv4
        linux["sysctl"] = {"net.ipv4.ip_unprivileged_port_start": linux["sysctl"].popitem()[1]}
        return "masked", config
    if name == "four":  # the first of the args is the program's own name
        hook = config["hooks"]["createRuntime"][0]
        hook["args"] = ["cp", *hook["args"]]
        return "hooked", config
    if name == "five":  # /proc/PID/net is a folder of statistics
        network = next(one for one in linux["namespaces"] if one["type"] == "network")
        del network["path"]
        return "cloned", config
    linux["seccomp"]["syscalls"][0]["names"].remove("execve")  # the runtime's last call is under the filter too
    return "executed", config
