"""Settings: one TOML file, the environment and keywords become frozen records."""
