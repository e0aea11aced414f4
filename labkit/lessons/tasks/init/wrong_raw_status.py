"""and process 1 with"""

import os
import signal


def be_init(words):
    program = os.fork()
    if program == 0:
        try:
            os.execvp(words[0], words)
        finally:
            os._exit(127)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda arrived, frame: os.kill(program, arrived))
    while True:
        pid, status = os.wait()
        if pid == program:
            return status
