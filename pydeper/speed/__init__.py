"""How fast a model is on this machine, and with which settings it is fastest."""
