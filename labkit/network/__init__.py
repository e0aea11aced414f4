"""Floor 2: bridge networks: addresses, veth pairs, NAT and published ports."""
