# exercise: escape
import io
import tarfile


def escape(layer, outside, name, text):
    """Write a layer, a plain tar archive, to the path `layer`: unpacked carelessly, it makes OUTSIDE/NAME.

    outside -- absolute path of a folder that exists, and is not in the unpacker's root
    name    -- the file to be made there
    text    -- what shall be in it

    The unpacker refuses each entry whose name begins with a slash or has a part `..`, and each hard
    link. It makes all others in their order, in its root, with plain open(), mkdir() and symlink().
    """
    ...
