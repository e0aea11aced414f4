"""Top floor: labkit.lessons.tasks: the exercises, one folder each.

Owns: nothing but the place; labkit/lessons/task.py reads the folders.
A folder is no package: its files are cells and answers, run one by one.

Read: CONTRIBUTING.md, "Adding an exercise".
"""
