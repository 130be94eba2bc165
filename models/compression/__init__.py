"""Keras in, Keras out: techniques that make a captioner smaller or cheaper, and say what they reached.

A new technique costs one module and one line in `models.compression.registry`.
"""
