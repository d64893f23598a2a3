"""One training of DEPER put together from a configuration: frozen parts, samples, stages, pictures."""
