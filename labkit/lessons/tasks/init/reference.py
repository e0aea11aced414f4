# exercise: init
import os
import signal


def be_init(words):
    """Called in process 1 of a new pid namespace: start the program `words` (a list) and stay.

    Pass SIGTERM, SIGINT and SIGHUP on to the program, take in every process that has ended,
    and return when the program ends: its exit status, or 128 + the signal that ended it.
    """
    watched = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD}
    signal.pthread_sigmask(signal.SIG_BLOCK, watched)  # they wait in line for sigwait
    program = os.fork()
    if program == 0:
        try:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, watched)  # execve would pass the mask on
            os.execvp(words[0], words)
        finally:
            os._exit(127)
    while True:
        arrived = signal.sigwait(watched)
        if arrived != signal.SIGCHLD:
            os.kill(program, arrived)
            continue
        while True:  # one SIGCHLD may stand for several ends
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            if pid == program:
                code = os.waitstatus_to_exitcode(status)
                return code if code >= 0 else 128 - code
