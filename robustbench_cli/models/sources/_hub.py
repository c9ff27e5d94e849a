"""Downloads from the Hugging Face hub, as several sources make them."""

import logging


def quiet_hub() -> None:
    """Let the hub's client not tell of every attempt to connect: the error at the end says it."""
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
