"""One file per network: its layout, its sizes as data, its classes. All names: `catalog`."""
