"""JupyterLab in the lab's machine: on every interface of the guest, which the starter forwards
to 127.0.0.1 of the host alone; the token (JUPYTER_TOKEN) is always asked for."""

import os

c = get_config()  # noqa: F821 -- Jupyter gives it

c.ServerApp.ip = "0.0.0.0"  # VirtualBox's NAT forwards to the guest's interface, not to its loopback
c.ServerApp.port = 8888
c.ServerApp.port_retries = 0
c.ServerApp.open_browser = False
c.ServerApp.allow_root = True
c.ServerApp.root_dir = "/lab"
c.ServerApp.preferred_dir = "/lab/notebooks"
c.ServerApp.terminado_settings = {"shell_command": ["/bin/bash", "-l"]}
# settings/overrides.json: no question about news and none about the kernel, on nobody's first day.
c.LabApp.app_settings_dir = os.path.join(os.path.dirname(os.path.abspath(__file__)), "settings")
c.LabApp.news_url = None
c.LabApp.check_for_updates_class = "jupyterlab.NeverCheckForUpdate"
# Checkpoints would be written beside the notebook, into the shared tree.
c.FileCheckpoints.checkpoint_dir = "/var/cache/labkit/checkpoints"
# Starting a kernel takes over 15 s under software emulation.
c.MappingKernelManager.kernel_info_timeout = 180
