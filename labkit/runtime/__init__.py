"""Floor 3: the OCI runtime: `config.json` in, container out.

`labkit-runtime` (life/) is made of: document (config.json understood), groups (its cgroup), files (its view of
files), become (its user, powers and program).  The modules beside these folders are the engine: `labkit run` and
its verbs, which make a bundle of an image and hand it to the runtime, as podman and dockerd do.

Read: the OCI runtime specification 1.2.1.
"""
