"""The frozen VLM on vLLM servers: a persona's soft token goes into the prompt of a chat completion."""
