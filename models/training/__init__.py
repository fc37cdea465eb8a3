"""How the checkpoints in the box were made: ``python -m models.training lenet5 --data PATH`` repeats it."""
