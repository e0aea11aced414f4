"""the machine itself calls 127.0.0.1"""

# exercise: publish
import subprocess


def publish(port, address, inner):
    """Called on the machine: its TCP port `port` leads to port `inner` of a container, whose address is `address`."""
    rules = f"""
    table ip published {{
        chain prerouting {{
            type nat hook prerouting priority dstnat
            fib daddr type local tcp dport {port} counter dnat to {address}:{inner} comment "published"
        }}
    }}
    """
    subprocess.run(["nft", "-f", "-"], input=rules, text=True, check=True)
