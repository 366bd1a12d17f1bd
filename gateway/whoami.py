"""Who runs this command, for records that say who decided. Not who calls a gateway: that is `gateway.access`."""

import getpass
import os


def user_name() -> str:
    """In a container the user may have none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"
