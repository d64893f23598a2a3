"""How descriptions, persona vectors and ways of looking are judged: METHOD "Metrics", a metric a file."""
