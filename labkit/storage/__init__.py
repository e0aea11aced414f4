"""Floor 2: the root file system of a container, and the volumes laid over it."""
