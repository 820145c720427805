"""Devices and processes: the mesh, its sharding rules, several hosts."""
