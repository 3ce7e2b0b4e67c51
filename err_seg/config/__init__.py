"""The configuration: its keys with defaults and constraints, YAML files, and ``KEY VALUE`` overrides."""

from err_seg.config.defaults import Config
from err_seg.config.loading import (
    completed,
    extra_section,
    get_cfg,
    network_settings,
    settings_of,
    shipped_configs,
    validate,
)
from err_seg.utils.errors import ConfigError

__all__ = [
    "Config",
    "ConfigError",
    "completed",
    "extra_section",
    "get_cfg",
    "network_settings",
    "settings_of",
    "shipped_configs",
    "validate",
]
