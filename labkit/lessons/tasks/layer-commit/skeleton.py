# exercise: layer-commit
import gzip
import hashlib
import json
import os


def commit(layout, base, layer, name):
    """Make the image `name` in the OCI image layout `layout`: the image `base` and one layer on top.

    layer -- path of a plain tar archive; it is stored compressed with gzip, as
             application/vnd.oci.image.layer.v1.tar+gzip
    name  -- goes into index.json as the annotation org.opencontainers.image.ref.name

    `base` stays what it is. The new configuration keeps all that the old one says, and has one
    more diff_id and one more entry in its history.
    """
    ...
