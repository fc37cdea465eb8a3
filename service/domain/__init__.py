"""The words that the rooms share: plain data, errors and protocols. No framework, no input or output."""
