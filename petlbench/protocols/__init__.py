"""One strict TOML file per protocol; the file's name is the protocol's name."""
