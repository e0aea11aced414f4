"""labkit: the parts of Docker, one floor at a time, on a real kernel.

The floors, from the ground up (nothing imports upward):

    errors, paths      how errors speak, where state lives
    kernel             what Linux itself offers; no Docker word here
    image, storage, network
                       OCI images, copy-on-write roots and volumes, bridges and ports
    runtime            config.json in, container out
    observe, draw      reading the kernel's state; turning it into pictures and text
    lab                the machine: doctor, guest, JupyterLab

This module imports nothing: `import labkit` is run a thousand times, so it is fast.
"""

__version__ = "0.1.0"
