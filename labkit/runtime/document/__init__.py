"""Floor 3: config.json: read, and understood before anything is made.

Owns: reading a bundle's document, its types (a table) and its sense (rules), the
document that `spec` writes, and the one that `features` prints.
"""
