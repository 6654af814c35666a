"""Stand-ins that speak the real wire: a PBX, a Multcall, an embedded Valkey."""
