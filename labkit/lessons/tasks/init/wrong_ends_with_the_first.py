"""process 1 ended while the program still ran"""

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
    pid, status = os.wait()
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code
