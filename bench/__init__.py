"""Measures artifacts on runtimes: captions, quality, parity, latency, memory."""
