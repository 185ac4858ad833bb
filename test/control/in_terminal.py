"""Runs a command in a terminal of its own, shows what it writes there, and closes the terminal when stdin ends.

in_terminal.py COMMAND ARGUMENT...
"""

import os
import pty
import select
import sys

pid, terminal = pty.fork()
if pid == 0:
    os.execvp(sys.argv[1], sys.argv[1:])
while True:
    ready, _, _ = select.select([terminal, 0], [], [])
    if 0 in ready and os.read(0, 4096) == b"":
        os.close(terminal)
        break
    try:
        text = os.read(terminal, 65536) if terminal in ready else b" "
    except OSError:  # the command has ended
        break
    os.write(1, text if terminal in ready else b"")
_, status = os.waitpid(pid, 0)
sys.exit(os.waitstatus_to_exitcode(status))
