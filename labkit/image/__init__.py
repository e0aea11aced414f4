"""Floor 2: OCI images: references, digests, manifests, the content store, layers.

Read: the OCI image specification 1.1 and the distribution specification.
"""
