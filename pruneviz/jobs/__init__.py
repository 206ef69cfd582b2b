"""Who carries runs out: a supervisor for each device and its worker processes, several on a CPU where each run uses one thread.

No torch here: the web process imports it.
"""
