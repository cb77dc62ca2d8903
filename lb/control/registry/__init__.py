"""The registry: instances register, heartbeat and leave, and whoever needs a service asks for it.

It speaks the part of Consul's agent HTTP API that this takes, so that Consul's clients work unchanged.
"""
