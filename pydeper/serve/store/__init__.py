"""Keys and personas in a database: SQLite, or PostgreSQL for several gateways."""
