"""The top floor: the lab's machine: doctor, guest, JupyterLab."""
