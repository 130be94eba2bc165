"""`captionbench contract`: was this tensor, of another program, prepared as an artifact's contract says?"""

from pathlib import Path

import numpy as np

from bench.pictures import find_artifact
from convert.store import Store
from models.contract_check import explain_tensor
from models.errors import ConfigError
from models.preprocessing import read_image_file


def check_tensor(store: Store, artifact: str, image: Path, tensor: Path) -> str:
    """What was done otherwise, "" when nothing was.

    `tensor`: a .npy file of float numbers, (height, width, 3) or (3, height, width), with or without a batch of one.
    Raises ConfigError when it is none, ImageError and ArtifactError for what can't be read.
    """
    contract = find_artifact(store, artifact).contract.preprocessing
    try:
        values = np.load(tensor, allow_pickle=False)
    except FileNotFoundError:
        raise ConfigError(f"no tensor at {tensor}; save one with numpy.save.") from None
    except (OSError, ValueError, EOFError) as error:
        raise ConfigError(f"{tensor} is not a .npy file of numbers: {error}. Save it with numpy.save.") from error
    if not isinstance(values, np.ndarray) or not np.issubdtype(values.dtype, np.number):
        raise ConfigError(f"{tensor} is not one array of numbers. Save the encoder's input with numpy.save.")
    return explain_tensor(read_image_file(image), values, contract)
