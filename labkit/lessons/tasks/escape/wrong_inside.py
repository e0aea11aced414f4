"""nothing came out"""

import io
import tarfile


def escape(layer, outside, name, text):
    """Write a layer, a plain tar archive, to the path `layer`: unpacked carelessly, it makes OUTSIDE/NAME."""
    file = tarfile.TarInfo(f"{outside}/{name}".lstrip("/"))
    file.size = len(text.encode())
    with tarfile.open(layer, "w") as archive:
        archive.addfile(file, io.BytesIO(text.encode()))
