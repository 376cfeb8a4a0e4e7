"""The seccomp supervisor: knows system calls, not where the target is.

run.py is one program's life; supervisor.py receives notifications and gives each to the family (sys_*.py) that
registered for it; kernel.py has every ioctl and ctypes call; bpf.py the filter. Decisions come from the Policy, remote
things from the broker.
"""

from sidestage.trap.launch import LaunchError
from sidestage.trap.ports import Begin
from sidestage.trap.run import run

__all__ = ["Begin", "LaunchError", "run"]
