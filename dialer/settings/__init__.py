"""Settings: `dialer.toml`, environment variables and secret files, validated once at start."""

from dialer.settings.model import (
    CONFIG_VARIABLE,
    Settings,
    config_path,
    load,
    settings,
    stray_variables,
)
from dialer.settings.tables import (
    Broker,
    CallingHours,
    Cell,
    Limits,
    Log,
    Multcall,
    Numbers,
    Pbx,
    Recovery,
    Registry,
    environment_name,
)

__all__ = [
    "CONFIG_VARIABLE",
    "Broker",
    "CallingHours",
    "Cell",
    "Limits",
    "Log",
    "Multcall",
    "Numbers",
    "Pbx",
    "Recovery",
    "Registry",
    "Settings",
    "config_path",
    "environment_name",
    "load",
    "settings",
    "stray_variables",
]
