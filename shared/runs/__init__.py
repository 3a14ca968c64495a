"""A run, from request to summary.

model/          what a run is: its request, plans, waves, pace, messages (pure)
nodes/          what is done on one node, as programs (pure)
steps/          what a run's steps do; the registry of activities
orchestrators/  the order of the steps, for both hosts
hosts/          who drives them: the terminal, the serverless app; starting, leases, the watchdog
"""
