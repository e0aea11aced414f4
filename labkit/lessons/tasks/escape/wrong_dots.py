"""is refused for its name"""

import io
import tarfile


def escape(layer, outside, name, text):
    """Write a layer, a plain tar archive, to the path `layer`: unpacked carelessly, it makes OUTSIDE/NAME."""
    file = tarfile.TarInfo("../" * 20 + f"{outside}/{name}".lstrip("/"))
    file.size = len(text.encode())
    with tarfile.open(layer, "w") as archive:
        archive.addfile(file, io.BytesIO(text.encode()))
