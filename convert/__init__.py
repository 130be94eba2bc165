"""Turns a captioner into artifacts: recipes, exporters, quantization, the artifact store."""
