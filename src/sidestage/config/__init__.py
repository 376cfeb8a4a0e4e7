"""Configuration: schema, loading, errors that name the key."""

from sidestage.config.load import ConfigError, load
from sidestage.config.schema import Config

__all__ = ["Config", "ConfigError", "load"]
