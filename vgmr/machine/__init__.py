"""The machine: files, processes, devices."""
