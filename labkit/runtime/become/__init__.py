"""Floor 3: from "process 1 to be" to the program: everything of config.json's `process`.

ready    in the maker: what can be worked out before there is a child
early    in the child, below the machine's own /proc
settle   limits, scheduling, personality
init     a process 1 that reaps, where one is asked for
drop     user, groups, capabilities, working directory
filters  the seccomp filter, as late as it can be
execute  the program found, and become
compiled seccomp programs, kept from one start to the next
sealed   the interpreter itself, out of a container's reach
"""
