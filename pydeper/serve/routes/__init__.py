"""What clients call: thin functions that read a request, ask the gateway, and answer."""
