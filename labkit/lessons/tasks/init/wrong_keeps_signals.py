"""SIGTERM came to process 1 and went no further"""

import os


def be_init(words):
    program = os.fork()
    if program == 0:
        try:
            os.execvp(words[0], words)
        finally:
            os._exit(127)
    while True:
        pid, status = os.wait()
        if pid == program:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code
