"""Batching: items in, outputs out, in batches on one device. This package does not depend on pictures or HTTP.

batcher.py  takes the device slot, then a batch from the queue, and runs it
queue.py    the bounded queue of one checkpoint, earliest deadline first, and where a batch of it ends
turns.py    callers with many items take turns with the others
places.py   how many places of a queue one caller may hold
slot.py     the right to run on the device, which the checkpoints of a process share
limit.py    how many items a batch may hold, learned under load
"""
