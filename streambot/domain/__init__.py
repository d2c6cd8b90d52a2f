"""The one vocabulary of all packages: instruments, events, units, configuration, errors. Pure."""
