"""Data only: the manifest, label sets and the small checkpoints in the box. A package, so that it installs."""
