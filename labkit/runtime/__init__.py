"""Floor 3: the OCI runtime: `config.json` in, container out.

Read: the OCI runtime specification 1.2.1.
"""
