"""a zombie that nobody takes in"""

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
    code = os.waitstatus_to_exitcode(os.waitpid(program, 0)[1])
    return code if code >= 0 else 128 - code
