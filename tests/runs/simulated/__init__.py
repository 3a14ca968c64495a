"""Whole runs in virtual time: the real orchestrators, steps and store on a simulated Azure, hub and clock."""
