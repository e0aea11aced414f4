# exercise: find-secret
import gzip
import json
import os
import re

KEY = rb"lab-key-[0-9a-f]{24}"


def keys(layout, digest):
    """Every key that can be read out of an image: a set of words such as lab-key-00112233445566778899aabb.

    layout -- path of an OCI image layout: the blob sha256:abc... is the file blobs/sha256/abc...
    digest -- of the image's manifest; its layers are plain tar archives, or compressed with gzip
    """
    ...
