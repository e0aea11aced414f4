"""Floor 2: a Dockerfile to an image: read, planned, each step looked up or made, written into the store.

From a text to an image, in the order of the files: lines, words, dockerfile (reading); plan (which
stages, in which order); patterns, context, hashes (what COPY takes, and its key); settings (what changes no
file); cache; filling, copying, archives, users, running, inside (what changes files); layer (a folder becomes a
layer); stage, building, builder, export (the whole); problems, progress, result (what is told).
A container is not started here: whoever builds hands in a Runner.

Read: Docker's "Dockerfile reference"; the OCI image specification.
"""
