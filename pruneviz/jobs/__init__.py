"""Who carries runs out: a supervisor for each device, one process for each group of runs. No torch here: the web process imports it."""
