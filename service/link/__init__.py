"""What passes between a front and a device owner on one machine: a Unix socket for messages, shared memory for pixels.

A front does HTTP, decodes pictures and answers; a device owner decides, queues, computes, and owns the memory. A call
over Ray Serve's handles costs some two milliseconds of CPU time; a message here costs tens of microseconds, and a crop
is copied once, from the front's memory into the batch.

messages.py    every message, and the protocol's version
connection.py  messages over a socket, in frames
crops.py       the front's memory for crops, and the owner's view of it
sockets.py     listening, connecting, and handing the memory over
"""
