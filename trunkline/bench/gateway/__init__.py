"""`trunkline bench gateway`: what a call costs between agent and engine. Owns the measurement; the gateway is the real one.

load.py (a process) ── HTTP ──► served.py (a process: gateway, journal) ── Unix socket ──► stub_engine.py (a process)
scheduled times                 CPU, resident memory                                      its own time of every call
"""
