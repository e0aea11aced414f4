# exercise: pick-platform
import json


def pick(index, platform):
    """The digest of the manifest that an image index has for a platform; None where it has none.

    index    -- the bytes of the index, JSON
    platform -- SYSTEM/ARCHITECTURE or SYSTEM/ARCHITECTURE/VARIANT, such as linux/arm/v6

    An arm64 without a variant is arm64/v8, an arm without one is arm/v7: in the index, and in
    `platform` too.
    """
    ...
