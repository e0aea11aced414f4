"""SIGTERM is blocked in the program"""

import os
import signal


def be_init(words):
    watched = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD}
    signal.pthread_sigmask(signal.SIG_BLOCK, watched)
    program = os.fork()
    if program == 0:
        try:
            os.execvp(words[0], words)
        finally:
            os._exit(127)
    while True:
        arrived = signal.sigwait(watched)
        if arrived != signal.SIGCHLD:
            os.kill(program, arrived)
            continue
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            if pid == program:
                code = os.waitstatus_to_exitcode(status)
                return code if code >= 0 else 128 - code
