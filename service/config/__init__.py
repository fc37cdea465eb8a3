"""What the operator says: settings, fleets, addresses, and whether a fleet fits the machine."""
