"""Floor 1: seccomp: a small program that is asked before each system call of a process.

profile     the object of config.json's linux.seccomp, understood: actions, rules, architectures, flags
machines    the architectures that a filter may name, and what is odd about each
compiler    a profile made into a program: number ranges, a search tree, comparisons of 64 bits in halves
classic     classic BPF: instructions, labels, jumps longer than 255, and how a person reads it
load        giving the program to the kernel, for this process and all that come from it
listener    answering for a process whose call the program passed on (SECCOMP_RET_USER_NOTIF)

`load.install(profile.parse(object))` does all of it.  Each is imported by its name, so that who needs
no filter pays for none.
"""
