"""The gateway `pydeper serve`: descriptions and personas over HTTP, for clients that need not be trusted."""
