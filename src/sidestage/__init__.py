"""sidestage: run a process on your own machine as if it were inside a service of your cluster.

cli composes everything; targets find a target and start the agent; session talks to it; trap answers the program's
system calls with what views decide; protocol and stream are shared with the agent. ARCHITECTURE.md follows one connect().
"""

__version__ = "0.1.0"
