"""Runtime: the checkpoints that are served in this process, from encoded pictures to probabilities.

placement.py      which predictor serves a checkpoint, and what a re-import does
predictor.py      one checkpoint being served
arriving.py       the pictures that are not queued yet
decoding.py       decodes a checkpoint's pictures: at once, in a thread, on the GPU, or where their bytes are
gpu_decoding.py   encoded bytes -> the network's input on a GPU, in batches; decode_gate.py says which checkpoints may
                  have its crops, by what they answer to the files of decode_gate_pictures.py
forward.py        the forward passes of a checkpoint: the engine, its forecast and its metrics, as the batcher sees them
residency.py      which checkpoints are in device memory, under a byte limit
resident.py       one checkpoint in that ledger
parking.py        weights that had to leave device memory, kept in host memory under a limit of its own
loading.py        loads one checkpoint, and closes it again
load_failures.py  loads that failed, and when each is tried again
owner.py          serves fronts, which are other processes: a device owner
calls.py          answers the other HTTP requests that a front forwards
"""
