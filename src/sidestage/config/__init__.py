"""Configuration: schema, loading, errors that name the key."""
