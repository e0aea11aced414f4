"""Floor 3: the container's view of files, in four steps.

prepare  in the maker: bind mounts that the container's user could not make, and those with mapped numbers
build    in the child: the root, and config.json's mounts and devices on it
enter    the root becomes the root
finish   what is read-only, hidden or set in the new root

options  the words of mount options; beneath: names that no symlink can bend; copyup: what a tmpfs begins with
"""
