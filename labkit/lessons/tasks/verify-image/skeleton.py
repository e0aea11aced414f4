# exercise: verify-image
import gzip
import hashlib
import json
import os


def broken(layout, digest):
    """Which promises of an image do its bytes not keep? A list of digests, empty when all is well.

    layout -- path of an OCI image layout: the blob sha256:abc... is the file blobs/sha256/abc...
    digest -- of the manifest, as somebody told you; nothing else is known to be true

    Of the manifest, the configuration and each layer: the digest, if the blob is missing, hashes to
    something else, or has another size than the one that names it says. Of each layer (gzip) whose
    blob is right: its diff_id, if the plain bytes hash to something else.
    Nothing is believed that stands in a broken blob.
    """
    ...
