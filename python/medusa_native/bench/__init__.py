"""Latency and throughput of one model, plainly and with Medusa, taking turns on one engine."""
