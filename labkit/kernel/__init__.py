"""Floor 1: what Linux itself offers, one file a primitive.

No Docker word appears on this floor.  It imports nothing but the ground floor
(`labkit.errors`, `labkit.paths`).
"""
