"""Floor 3: a container's life by the specification's verbs: create, start, state, kill, delete, and exec.

store    what is remembered, one folder a container
maker    create, from the runtime's side
born     create, from the container's side: the steps of a birth
join     exec
mapping  whose numbers a user namespace has
hooks    the programs that config.json wants run on the way
stepping a birth that stops between its steps
verbs    start, kill, delete, and what runs until the end
update   other limits for a container that lives
events   what it uses, and that it ran out of memory
words    runc's command line: the table, and its two readers
command  what each verb asks for and prints
"""
