"""A service without Ray: a supervisor's driver, a device owner, and fronts under uvicorn.

driver.py   starts the other processes, replaces those that die, and stops them in order
process.py  one of these processes
targets.py  where each serves its metrics
"""
