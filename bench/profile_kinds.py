"""What an operator spends its time on, whichever runtime's profiler tells it."""

from enum import StrEnum


class Work(StrEnum):
    """An arithmetic, or moving and converting numbers."""

    INT8 = "int8"
    INT4 = "int4"
    INT16 = "int16"
    FP16 = "fp16"
    FP32 = "fp32"
    OTHER = "other"
    DATA_MOVEMENT = "data_movement"  # layouts, shapes, look-ups, and conversions between numbers
